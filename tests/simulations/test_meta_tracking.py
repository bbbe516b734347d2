"""`fl-shield meta-train` and the experiment tracker: what W&B has is what was learned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from fl_shield.descriptors.table import DescriptorTable
from fl_shield.detector.features import fit_features
from fl_shield.detector.meta_detector import MetaDetector
from fl_shield.errors import FlShieldError, StateError
from fl_shield.meta import MetaTraining, train_detector, train_network
from fl_shield.meta import training as training_module
from fl_shield.meta.calibrate import mean_auroc
from fl_shield.meta.checkpoint import read_losses
from fl_shield.meta.training import members
from fl_shield.shadow.table import EpisodeTable, write_tables
from fl_shield.simulations.cli import main
from fl_shield.simulations.composing import compose_config
from fl_shield.simulations.meta_train import _checked
from tests._offline_wandb import offline_runs

NAMES = ("loud", "quiet", "noise")
SETTINGS = MetaTraining(networks=2, steps=30, rounds=8, hidden=16)
QUICK = ["networks=2", "steps=30", "rounds=8", "hidden=16", "false_alarms=0.1"]


def episodes(count: int = 40) -> list[EpisodeTable]:
    """Return rounds of two data sets; attackers are 1.5 louder, so that they can be mistaken."""
    tables = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        malicious = np.arange(6 + seed % 3) < seed % 3
        raw = rng.standard_normal((len(malicious), len(NAMES)))
        raw[malicious, 0] += 1.5
        domain = "ab"[seed % 2]
        tables.append(
            EpisodeTable(
                domain, f"{domain}-{seed}", 1, NAMES, raw, malicious, np.arange(len(malicious)), {}
            )
        )
    return tables


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Return the beginning of a command that learns from `episodes` into `tmp_path / "one"`."""
    (tmp_path / "tables").mkdir()
    for domain in "ab":
        own = [table for table in episodes() if table.domain == domain]
        write_tables(tmp_path / "tables" / f"{domain}.safetensors", own)
    return ["meta-train", f"tables={tmp_path / 'tables'}", f"out={tmp_path / 'one'}", *QUICK]


def curves(tables: list[EpisodeTable]) -> list[list[float]]:
    """Return the losses of each network of `SETTINGS`, as the training itself reports them."""
    found, spec = [], fit_features(tables)
    for one in members(SETTINGS, spec):
        losses: dict[int, float] = {}
        train_network(tables, spec, one, losses.__setitem__)
        found.append(list(losses.values()))
    return found


def area(tables: list[EpisodeTable], domain: str) -> float:
    """Return the mean AUROC of a data set's rounds under a detector of the other, by sklearn."""
    others = [table for table in tables if table.domain != domain]
    detector = MetaDetector(*train_detector(others, SETTINGS))
    areas = [
        roc_auc_score(t.malicious, detector.score(DescriptorTable(t.names, t.raw, t.raw)))
        for t in tables
        if t.domain == domain and t.malicious.any()
    ]
    return float(np.mean(areas))


def test_wandb_has_the_curves_the_settings_and_the_card(command: list[str], tmp_path: Path) -> None:
    assert main(command) == 0
    runs = offline_runs(tmp_path / "one" / "wandb")
    assert set(runs) == {"network-0", "network-1", "detector"}
    assert {run.group for run in runs.values()} == {"one"}
    for index, losses in enumerate(curves(episodes())):
        run = runs[f"network-{index}"]
        assert [row["_step"] for row in run.rows] == list(range(1, 31))
        assert [row["loss"] for row in run.rows] == pytest.approx(losses, rel=1e-6)
        assert run.summary["final/loss"] == pytest.approx(losses[-1], rel=1e-6)
        assert run.config["steps"] == 30
        assert run.config["algorithm"] == "multi_task"
        assert run.config["tracking"]["mode"] == "offline"
    summary = runs["detector"].summary
    for domain in "ab":
        assert summary[f"final/unseen_auroc/{domain}"] == pytest.approx(area(episodes(), domain))
    card = json.loads((tmp_path / "one" / "detector.json").read_text(encoding="utf-8"))
    told = summary["final/card"]
    assert {"calibration", "unseen_auroc", "federations", "command", "seconds"} <= set(told)
    assert told == {key: card[key] for key in told}


def test_data_sets_that_are_held_out_are_judged_in_the_end(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = ["held_out=[b]", "calibrate=false", "tracking=none"]
    assert main([*command, *held_out]) == 0
    assert not (tmp_path / "one" / "wandb").exists()
    card = json.loads((tmp_path / "one" / "detector.json").read_text(encoding="utf-8"))
    assert card["unseen_auroc"] == {"b": pytest.approx(area(episodes(), "b"))}
    shown = capsys.readouterr().out
    assert f"AUROC in a round of b, not trained on: {card['unseen_auroc']['b']:.3f}" in shown
    assert "W&B" not in shown


@pytest.mark.slow
def test_two_processes_leave_the_same_curves(command: list[str], tmp_path: Path) -> None:
    assert main([*command, "workers=2", "calibrate=false"]) == 0
    runs = offline_runs(tmp_path / "one" / "wandb")
    for index, losses in enumerate(curves(episodes())):
        told = [row["loss"] for row in runs[f"network-{index}"].rows]
        # Another process may split its sums otherwise over threads.
        assert told == pytest.approx(losses, rel=1e-4)


def test_a_training_that_went_on_has_the_whole_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_module, "CHECKPOINT_EVERY", 10)
    tables = episodes()
    spec = fit_features(tables)
    one = members(SETTINGS, spec)[0]
    whole: dict[int, float] = {}
    train_network(tables, spec, one, whole.__setitem__)
    file = tmp_path / "network.safetensors"

    def stop(step: int, _loss: float) -> None:
        if step == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_network(tables, spec, one, stop, file)
    assert list(read_losses(file)) == list(range(1, 21))
    _forget_losses(file, tmp_path / "old.safetensors")
    train_network(tables, spec, one, checkpoint=file)
    assert read_losses(file) == whole
    # A checkpoint of before losses were kept is gone on from; its curve begins there.
    old = train_network(tables, spec, one, checkpoint=tmp_path / "old.safetensors")
    assert read_losses(tmp_path / "old.safetensors") == {s: whole[s] for s in range(21, 31)}
    again = train_network(tables, spec, one)
    for found, wanted in zip(old.parameters(), again.parameters(), strict=True):
        assert torch.equal(found, wanted)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(StateError, match="damaged"):
        read_losses(file)


def _forget_losses(file: Path, target: Path) -> None:
    with safe_open(file, framework="pt") as archive:
        facts = archive.metadata()
        kept = {k: archive.get_tensor(k) for k in archive.keys() if k != "losses"}  # noqa: SIM118
    save_file(kept, target, metadata=facts)


def test_tracking_is_chosen_as_in_simulations(capsys: pytest.CaptureFixture[str]) -> None:
    for overrides in ([], ["tracking=none"], ["tracking=wandb", "tracking.project=mine"]):
        ours = compose_config(overrides, name="meta_train").tracking
        assert ours == compose_config(overrides).tracking
    for wrong, sentence in (
        ("tracking=wanb", "Unknown tracking 'wanb'. Did you mean 'wandb'?"),
        ("tracking.mod=online", "Unknown setting of tracking 'mod'. Did you mean 'mode'?"),
        ("trackin=none", "Unknown setting 'trackin'. Did you mean 'tracking'?"),
    ):
        assert main(["meta-train", wrong]) == 2
        assert sentence in capsys.readouterr().err


def test_a_wrong_mode_is_said_before_anything_is_trained(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "tracking.mode=onlin"]) == 2
    assert "Did you mean 'online'?" in capsys.readouterr().err
    assert not (tmp_path / "one").exists()


def test_a_process_that_dies_is_one_sentence() -> None:
    with pytest.raises(FlShieldError, match="What is trained is kept: run the same command again"):
        _checked(ray.exceptions.WorkerCrashedError())
    with pytest.raises(StateError, match="mine"):
        _checked(StateError("mine"))


def test_the_mean_auroc_leaves_out_rounds_of_one_kind() -> None:
    odds = np.array([0.0, 1.0, 2.0])
    both, none = np.array([False, True, True]), np.array([False, False, False])
    worst = np.array([True, False, False])
    assert mean_auroc([(odds, none)]) is None
    assert mean_auroc([(odds, both), (odds, none), (odds, worst)]) == 0.5
