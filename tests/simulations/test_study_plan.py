"""Names become overrides that compose; what a defence needs of the run is checked first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fl_shield.errors import ConfigurationError
from fl_shield.simulations.composing import FOLDER, compose_config
from fl_shield.simulations.requirements import unmet
from fl_shield.simulations.settings import settings_from
from fl_shield.simulations.study_plan import Plan, check_cells, plan_of, split_overrides

STUDIES = sorted(file.stem for file in (FOLDER / "study").glob("*.yaml"))
SMALL = ["num_clients=6", "data.max_train=200", "data.max_test=50"]


def plan(tmp_path: Path, *overrides: str) -> Plan:
    own, cells = split_overrides([f"folder={tmp_path}/study", *overrides])
    return plan_of(compose_config(own, name="study"), cells)


def test_overrides_are_the_studys_or_the_cells() -> None:
    own, cells = split_overrides(
        ["study=potency", "seeds=[1]", "data_sets=[mnist]", "data.max_train=9", "rounds=2",
         "catalogue.attacks.mine=[attack=badnets]", "+training.weight_decay=0.1", "warm_start=3",
         "warm_start.epochs=1", "tracking.mode=online"]
    )  # fmt: skip
    assert own == [
        "study=potency", "seeds=[1]", "data_sets=[mnist]",
        "catalogue.attacks.mine=[attack=badnets]", "warm_start=3",
    ]  # fmt: skip
    assert cells == [
        "data.max_train=9", "rounds=2", "+training.weight_decay=0.1", "warm_start.epochs=1",
        "tracking.mode=online",
    ]  # fmt: skip


@pytest.mark.parametrize("name", STUDIES)
def test_one_cell_of_each_kind_of_every_study_composes(name: str, tmp_path: Path) -> None:
    found = plan(tmp_path, f"study={name}", "data_root=/somewhere", "detectors=/elsewhere")
    assert found.name == name
    kinds: dict[Any, Any] = {}
    for job in (*found.warm, *found.jobs):
        cell = job.cell
        for kind in (
            ("data", cell.data),
            ("attack", cell.configuration),
            ("defence", cell.defence),
        ):
            kinds.setdefault(kind, job)
    for job in {job.folder: job for job in kinds.values()}.values():
        settings = job.settings()
        assert settings.arms == (job.cell.arm,)
        assert unmet(settings) == []


def test_the_overrides_of_a_cell_say_all_that_it_is(tmp_path: Path) -> None:
    found = plan(tmp_path, "data_sets=[mnist]", "attacks=[neurotoxin]", "triggers=[blend]",
                 "attackers=[0.4]", "defences=[multikrum]", "seeds=[7]", "data_root=/somewhere",
                 "rounds=5", "tracking=wandb", "num_clients=20")  # fmt: skip
    (job,) = found.jobs
    config = job.settings().config
    assert config["data"]["root"] == "/somewhere/mnist"
    assert config["trigger"]["_target_"].endswith("Blend")
    assert config["strategy"]["num_malicious_nodes"] == 8, "as many as there are"
    assert config["defence"]["_target_"].endswith("no_defence")
    assert (config["seed"], config["rounds"], config["attackers"]) == (7, 5, 0.4)
    assert config["tracking"]["group"] == "smoke", "the study is the group in W&B"
    assert job.folder == tmp_path / "study" / "mnist-neurotoxin-blend-0.4-multikrum-seed7"


def test_a_data_set_can_change_what_meets_it(tmp_path: Path) -> None:
    radius = "'attack.model_poisoning.radius=7.5'"
    entry = f"{{attacks:{{projected:[{radius}]}},warm_start:2}}"
    found = plan(tmp_path, "attacks=[projected]", "seeds=[0,1]", "attackers=[0.25]",
                 f"+catalogue.data_sets.digits={entry}")  # fmt: skip
    attacked = [job for job in found.jobs if job.cell.attackers]
    assert attacked[0].settings().config["attack"]["model_poisoning"]["radius"] == 7.5
    assert [job.folder.name for job in found.warm] == ["digits-warm-seed0", "digits-warm-seed1"]
    warm = found.warm[1].settings()
    assert (warm.rounds, warm.seed, warm.arms[0].name) == (2, 1, "clean")
    start = attacked[-1].settings().config["warm_start"]["checkpoint"]
    assert start == f"{found.warm[1].folder}/arms/clean/checkpoint"


def test_the_settings_of_a_group_hold_for_its_cells(tmp_path: Path) -> None:
    groups = (
        "{triggers:[warp],seeds:[0],settings:['trigger.strength=2','rounds=9','training.epochs=4']}"
    )
    found = plan(tmp_path, f"groups=[{{attackers:[0],seeds:[0]}},{groups}]", "rounds=7",
                 "attackers=[0.4]", "attacks=[badnets]", "defences=[none]",
                 "warm_start=3")  # fmt: skip
    clean, attacked = (job.settings() for job in found.jobs)
    assert attacked.config["trigger"]["strength"] == 2
    assert (clean.config["training"]["epochs"], attacked.config["training"]["epochs"]) == (2, 4)
    assert (clean.rounds, attacked.rounds) == (7, 7), "the command line has the last word"
    assert found.warm[0].settings().config["training"]["epochs"] == 2, "clean starts are shared"


def test_a_setting_of_a_group_that_does_not_fit_is_named_with_its_cell(tmp_path: Path) -> None:
    groups = "groups=[{triggers:[patch],settings:['attack.poison_share=2']}]"
    with pytest.raises(ConfigurationError, match=r"digits, badnets, patch.*attack.poison_share=2:"):
        check_cells(plan(tmp_path, *SMALL, groups))


def test_data_in_files_need_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FL_SHIELD_DATA", raising=False)
    with pytest.raises(ConfigurationError, match=r"'mnist' needs `data_root`. Set data_root=DIR"):
        plan(tmp_path, "data_sets=[mnist]")
    with pytest.raises(ConfigurationError, match=r"sets `data` .* Choose its lists .*data_sets="):
        plan(tmp_path, "data=mnist")
    with pytest.raises(ConfigurationError, match="Expected `workers` to be a whole number"):
        plan(tmp_path, "workers=0")


@pytest.mark.parametrize(("override", "near"), [("worker=3", "workers"), ("roundz=3", "rounds")])
def test_settings_of_neither_kind_are_answered_with_the_nearest(override: str, near: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Did you mean {near!r}"):
        split_overrides([override])


def test_what_cannot_run_is_named_with_its_cell(tmp_path: Path) -> None:
    found = plan(tmp_path, *SMALL, "defences=[none,bulyan,fldetector]", "attackers=[0.4]",
                 "triggers=[patch,word]", "attacks=[badnets]")  # fmt: skip
    with pytest.raises(ConfigurationError) as caught:
        check_cells(found)
    lines = str(caught.value).splitlines()
    assert any(
        "Bulyan needs at least 11 updates a round" in line and "digits" in line for line in lines
    )
    assert any("FLDetector judges nobody in its first 10 rounds" in line for line in lines)
    assert any(line.startswith("digits, badnets, word") for line in lines), lines
    assert check_cells(plan(tmp_path, *SMALL, "defences=[none,krum]", "attackers=[0,1]"))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["strategy=krum", "num_clients=10"], "Krum needs at least 11 updates a round"),
        (["strategy=krum", "fraction_train=0.5"], "this run has 10"),
        (["strategy=multikrum", "num_clients=10"], "MultiKrum needs at least 11"),
        (["strategy=bulyan", "num_clients=18"], "Bulyan needs at least 19"),
        (["defence=rlr", "num_clients=3"], "asks for 4 signs that agree, and this run has 3"),
    ],
)
def test_needs_that_a_run_does_not_meet(overrides: list[str], sentence: str) -> None:
    (found,) = unmet(settings_from(compose_config([*overrides, "rounds=20"])))
    assert sentence in found


class NeedsAll:
    needs_full_participation = True
    needs_odd_cohort = True


def test_a_defence_can_declare_its_needs() -> None:
    config = compose_config(["fraction_train=0.5"])
    config.defence = {"_target_": f"{__name__}.NeedsAll", "_partial_": True}
    sentences = unmet(settings_from(config))
    assert "samples 10 of 20" in sentences[0]
    assert "an odd number of updates a round, and this run has 10" in sentences[1]
    config.arms = ["clean", "undefended"]
    assert unmet(settings_from(config)) == [], "without a defended arm nothing is needed"
