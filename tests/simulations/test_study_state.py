"""What the folder of a cell holds decides what becomes of it; damage never passes for finished."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from fl_shield.detector import SHIPPED
from fl_shield.detector.store import read_card
from fl_shield.simulations.arms import ARMS
from fl_shield.simulations.composing import compose_config
from fl_shield.simulations.seen import detector_of
from fl_shield.simulations.settings import Settings, settings_from
from fl_shield.simulations.study_state import State, move_aside, state_of

ARM = ARMS["undefended"]


@pytest.fixture(scope="module")
def settings() -> Settings:
    return settings_from(compose_config(["rounds=3", "arms=[undefended]", "attack=projected"]))


@pytest.fixture
def folder(tmp_path: Path, settings: Settings) -> Path:
    """Return a finished run folder of three rounds."""
    place = tmp_path / "cell" / "arms" / "undefended"
    place.mkdir(parents=True)
    lines = [json.dumps({"round": n, "main_accuracy": 0.5, "asr": 0.1}) for n in range(4)]
    (place / "rounds.jsonl").write_text("\n".join(lines) + "\n")
    (place / "truth.json").write_text("{}")
    root = tmp_path / "cell"
    (root / "config.yaml").write_text(yaml.safe_dump(dict(settings.config)))
    (root / "summary.json").write_text(json.dumps({"finished": True}))
    return root


def test_a_finished_run_is_finished(folder: Path, settings: Settings) -> None:
    assert state_of(folder, settings, ARM) == (State.FINISHED, "")
    assert state_of(folder.parent / "none", settings, ARM) == (State.ABSENT, "")


def test_an_interrupted_run_goes_on(folder: Path, settings: Settings) -> None:
    (folder / "summary.json").write_text(json.dumps({"finished": False}))
    assert state_of(folder, settings, ARM)[0] is State.PARTIAL
    (folder / "summary.json").unlink()
    with (folder / "arms/undefended/rounds.jsonl").open("a") as stream:
        stream.write('{"round": 4, "main_acc')
    assert state_of(folder, settings, ARM)[0] is State.PARTIAL, "a torn line is run again"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("summary.json", '{"finished": tr', "summary.json: damaged"),
        ("config.yaml", None, "config.yaml: missing"),
        ("config.yaml", "seed: [", "config.yaml: damaged"),
        ("arms/undefended/rounds.jsonl", '{"round": 0}\n{"round": 1}\n', "lacks rounds of 3"),
        ("arms/undefended/rounds.jsonl", '{"round": 0}\n\0\0\0', "line 2: damaged"),
        ("arms/undefended/truth.json", "{", "truth.json: damaged"),
    ],
)
def test_damage_is_named(
    folder: Path, settings: Settings, name: str, content: str | None, sentence: str
) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    state, what = state_of(folder, settings, ARM)
    assert state is State.BROKEN
    assert sentence in what


def test_a_folder_that_is_no_run_is_damaged(folder: Path, settings: Settings) -> None:
    (folder / "arms").rename(folder / "legs")
    state, what = state_of(folder, settings, ARM)
    assert state is State.BROKEN
    assert "no `arms` folder" in what


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("rounds=4", "rounds was 3, and is now 4"),
        ("attack.model_poisoning.radius=2.0", "attack.model_poisoning.radius was 1.0"),
        ("attack=badnets", "attack.model_poisoning._target_ was"),
    ],
)
def test_a_run_with_other_settings_is_not_this_one(
    folder: Path, override: str, sentence: str
) -> None:
    overrides = ["rounds=3", "arms=[undefended]", "attack=projected"]
    other = settings_from(compose_config([*overrides, override]))
    state, what = state_of(folder, other, ARM)
    assert state is State.OTHER
    assert sentence in what


def test_a_run_that_another_detector_judged_is_not_this_one(
    folder: Path, settings: Settings
) -> None:
    config = {**settings.config, "arms": ["defended"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "arms/undefended").rename(folder / "arms/defended")
    defended = settings_from(compose_config(["rounds=3", "arms=[defended]", "attack=projected"]))

    def judged_by(detector: str | None) -> tuple[State, str]:
        (folder / "summary.json").write_text(json.dumps({"finished": True, "detector": detector}))
        return state_of(folder, defended, ARMS["defended"])

    now = read_card(SHIPPED)["sha256"]
    assert judged_by(now) == judged_by(None) == (State.FINISHED, "")
    state, what = judged_by("0" * 64)
    assert state is State.OTHER
    assert what == f"its detector had the weights 000000000000…, and has {now[:12]}… now"


def test_a_run_without_a_defence_has_no_detector(settings: Settings) -> None:
    assert detector_of(settings.config) is None
    assert detector_of({**settings.config, "arms": ["clean", "clean_defended"]}) is not None


def test_where_and_how_a_run_is_made_does_not_matter(folder: Path) -> None:
    overrides = ["rounds=3", "arms=[undefended]", "attack=projected", "seed=9", "run_name=other"]
    overrides += ["output_root=/elsewhere", "simulation.num_cpus=1", "tracking=none"]
    assert state_of(folder, settings_from(compose_config(overrides)), ARM)[0] is State.FINISHED


def test_a_setting_that_is_new_does_not_make_old_runs_strange(
    folder: Path, settings: Settings
) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["round_timeout"], config["warm_start"]["checkpoint"], config["training"]["momentum"]
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "gone": 1}))
    assert state_of(folder, settings, ARM)[0] is State.FINISHED


def test_damaged_folders_are_kept_apart(folder: Path) -> None:
    first = move_aside(folder)
    assert first == folder.parent / "damaged" / "cell.1"
    assert (first / "config.yaml").is_file()
    folder.mkdir()
    assert move_aside(folder).name == "cell.2"
    assert not folder.exists()
