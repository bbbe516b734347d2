"""Findings on final models: kept whole, refused when damaged, and shown as they are."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from sklearn.metrics import roc_auc_score

from fl_shield.data.task import model_inputs
from fl_shield.errors import StateError
from fl_shield.scanning.protocol import Held, Samples
from fl_shield.scanning.registry import build_scanner
from fl_shield.simulations.cli import main
from fl_shield.simulations.composing import compose_config
from fl_shield.simulations.federation import Federation, build_federation
from fl_shield.simulations.final_inputs import drawn_inputs, judge_inputs
from fl_shield.simulations.final_models import (
    FOUND,
    FinalModel,
    FinalModels,
    InputFinding,
    ModelFinding,
    read_final_models,
)
from fl_shield.simulations.final_scan import scan_finished
from fl_shield.simulations.report import build_report
from fl_shield.simulations.reporting import report_runs
from fl_shield.simulations.settings import settings_from
from fl_shield.simulations.study_cells import Cell
from fl_shield.simulations.study_job import Job, play
from fl_shield.simulations.study_state import state_of
from tests.simulations._run_folders import NUM_ROUNDS, SyntheticRun

CALM = ModelFinding("neural_cleanse", 1.25, 2.5, calibrated=True, suspected=False)
LOUD = ModelFinding("neural_cleanse", 3.75, 2.5, calibrated=True, suspected=True)
INPUTS = InputFinding("strip", -0.5, 64, 48, false_alarms=0.0625, found=0.875, auroc=0.9375)
BLIND = InputFinding("strip", -0.5, 64, 0, false_alarms=0.125, found=None, auroc=None)
FINDINGS = FinalModels(
    clean_samples=64,
    shadows=19,
    false_alarms=0.05,
    seed=7,
    models=(
        FinalModel("clean", NUM_ROUNDS, False, (CALM,), (BLIND,)),
        FinalModel("undefended", NUM_ROUNDS, True, (LOUD,), (INPUTS,)),
        FinalModel("defended", NUM_ROUNDS, None, (), (INPUTS,)),
    ),
)


def rows(page: str, table: str) -> list[list[str]]:
    """Return the body of a table of a page as text."""
    found = re.search(rf'<table id="{table}">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    assert found is not None, f"there is no table {table}"
    lines = re.findall(r"<tr>(.*?)</tr>", found[1], re.DOTALL)
    return [[unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", x)] for x in lines]


def test_findings_come_back_as_they_were_written(tmp_path: Path) -> None:
    assert read_final_models(tmp_path) is None
    assert FINDINGS.write(tmp_path) == tmp_path / FOUND
    assert read_final_models(tmp_path) == FINDINGS
    assert [file.name for file in tmp_path.iterdir()] == [FOUND], "no draft is left"
    record = json.loads((tmp_path / FOUND).read_text(encoding="utf-8"))
    assert record["suspects"] == ["undefended"]
    assert (record["format"], record["version"]) == ("fl_shield.final_models", 1)


def _without(key: str) -> dict[str, Any]:
    return {name: value for name, value in FINDINGS.record().items() if name != key}


DAMAGED: dict[str, str] = {
    "empty": "",
    "cut short": json.dumps(FINDINGS.record())[:-40],
    "a list": "[]",
    "a key missing": json.dumps(_without("models")),
    "models that are none": json.dumps(FINDINGS.record() | {"models": [3]}),
    "a truth for a number": json.dumps(FINDINGS.record() | {"shadows": True}),
    "no number": json.dumps(FINDINGS.record()).replace("3.75", "NaN"),
    "a text for a number": json.dumps(FINDINGS.record()).replace("3.75", '"3.75"'),
    "too deep": "[" * 100_000,
    "400 digits": json.dumps(FINDINGS.record()).replace("3.75", "9" * 400),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_findings_are_named_and_the_rest_is_shown(tmp_path: Path, kind: str) -> None:
    run = SyntheticRun().write(tmp_path / "a run")
    (run / FOUND).write_text(DAMAGED[kind], encoding="utf-8")
    sentence = (
        f"{run / FOUND} is damaged or cut short, and left out. "
        f"Write it again: fl-shield audit '{run}'"
    )
    with pytest.raises(StateError, match=re.escape(sentence)):
        read_final_models(run)
    page = unescape(build_report(run).read_text(encoding="utf-8"))
    assert sentence in page
    assert "Nobody has looked" not in page, "somebody has"
    assert "Main accuracy" in page


def test_another_version_is_not_guessed_at(tmp_path: Path) -> None:
    record = FINDINGS.record() | {"version": 2}
    (tmp_path / FOUND).write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(StateError, match="version 1, got 'fl_shield.final_models' and 2"):
        read_final_models(tmp_path)


def test_the_report_of_a_run_shows_the_findings(tmp_path: Path) -> None:
    run = SyntheticRun().write(tmp_path / "run")
    FINDINGS.write(run)
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))["runs"]
    asr = {arm: f"{100 * figures['asr']:.1f} %" for arm, figures in summary.items()}
    page = build_report(run).read_text(encoding="utf-8")
    assert rows(page, "final-models") == [
        ["no attack", "neural_cleanse", asr["clean"], "+1.25", "+2.50", "passed"],
        ["attack, no defence", "neural_cleanse", asr["undefended"], "+3.75", "+2.50", "suspected"],
    ]
    undefended = [asr["undefended"], "-0.50", "87.5 % of 48", "6.2 % of 64", "0.938"]
    assert rows(page, "final-inputs") == [
        ["no attack", "strip", asr["clean"], "-0.50", "–", "12.5 % of 64", "–"],
        ["attack, no defence", "strip", *undefended],
        ["attack, defended", "strip", asr["defended"], *undefended[1:]],
    ]
    assert "64 clean samples, 19 clean shadow models" in page
    assert "fl-shield audit" not in page
    assert page.count('id="plot-final_models"') == 1
    assert main(["report", str(run)]) == 0
    assert (run / "plots" / "final_models.svg").is_file()


def test_without_findings_there_is_a_command(tmp_path: Path) -> None:
    run = SyntheticRun().write(tmp_path / "a run")
    page = unescape(build_report(run).read_text(encoding="utf-8"))
    assert f"Scan with <code>fl-shield audit '{run}'</code>" in page
    assert "final-models" not in page
    replace(FINDINGS, models=FINDINGS.models[:2]).write(run)
    page = unescape(build_report(run).read_text(encoding="utf-8"))
    assert f"Not scanned: attack, defended. Scan with <code>fl-shield audit '{run}'" in page


def test_findings_of_an_earlier_round_say_so(tmp_path: Path) -> None:
    run = SyntheticRun().write(tmp_path / "run")
    early = replace(FINDINGS.models[1], round=3)
    replace(FINDINGS, models=(FINDINGS.models[0], early, FINDINGS.models[2])).write(run)
    page = unescape(build_report(run).read_text(encoding="utf-8"))
    assert page.count("the findings are those of round") == 1
    sentence = "attack, no defence: the findings are those of round 3, the run is at round"
    assert f"{sentence} {NUM_ROUNDS}. Scan it again: fl-shield audit {run}" in page


def test_the_report_of_many_runs_shows_them_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [SyntheticRun(seed=seed).write(tmp_path / f"run-{seed}") for seed in (1, 2, 3)]
    FINDINGS.write(runs[0])
    (runs[1] / FOUND).write_text("{", encoding="utf-8")
    report_runs(runs, tmp_path / "out", Console(width=200))
    page = unescape((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    found = rows(page, "final-models")
    assert [(row[0], row[4], row[-1]) for row in found] == [
        ("run-1", "neural_cleanse", "passed"),
        ("run-1", "neural_cleanse", "suspected"),
    ]
    assert len(rows(page, "final-inputs")) == 3
    assert "The final models of 1 of 3 runs have not been scanned" in page
    assert f"fl-shield audit {runs[2]}</code>" in page
    for place in (page, " ".join(capsys.readouterr().out.split())):
        assert f"{runs[1] / FOUND} is damaged or cut short" in place


def test_damaged_findings_do_not_undo_a_run_of_a_study(tmp_path: Path) -> None:
    run = SyntheticRun(arms=("undefended",)).write(tmp_path / "run")
    overrides = ["arms=[undefended]", f"rounds={NUM_ROUNDS}", "seed=7"]
    settings = settings_from(compose_config(overrides))
    (run / "config.yaml").write_text(yaml.safe_dump(dict(settings.config)), encoding="utf-8")
    (run / FOUND).write_text("{", encoding="utf-8")
    state, sentence = state_of(run, settings, settings.arms[0])
    assert (state.name, sentence) == ("FINISHED", "")
    other = settings_from(compose_config([*overrides, "scan_final_model=true"]))
    assert state_of(run, other, other.arms[0])[0].name == "FINISHED", "the run is the same"


@pytest.fixture(scope="module")
def federation() -> Federation:
    """Return a federation on the digits whose initial model has learned a little."""
    settings = ["rounds=1", "num_clients=4", "attackers=1", "probes.num_samples=48"]
    return build_federation(settings_from(compose_config(settings)))


def test_inputs_are_of_different_samples_and_differ_by_the_trigger_alone(
    federation: Federation,
) -> None:
    model = federation.new_model()
    clean, triggered = drawn_inputs(federation, model, 1, count=30)
    assert (len(clean), len(triggered)) == (30, 30)
    images = model_inputs(federation.task.test.inputs)
    labels = federation.task.test.labels
    own = [int((images == one).flatten(1).all(1).nonzero()[0]) for one in clean]
    size = images.shape[-1] // 4  # the patch covers a quarter of the side, in the corner
    covered = images.clone()
    covered[..., -size:, -size:] = 1.0
    others = [(covered == one).flatten(1).all(1).nonzero().flatten() for one in triggered]
    assert all(len(found) for found in others), "each is a test image with the patch and no more"
    assert not any(len(found) == 1 and int(found[0]) in own for found in others)
    assert all(0 not in labels[found].tolist() for found in others), "none is of the target class"
    again = drawn_inputs(federation, model, 1, count=30)
    assert torch.equal(again[0], clean)
    assert torch.equal(again[1], triggered)


def test_shares_are_those_of_the_scanner(federation: Federation) -> None:
    model = federation.initial_model()
    held = Held(clean=federation.probe_set(), spec=federation.task.spec, model=model, seed=3)
    (found,) = judge_inputs(federation, held, ["strip"], 0.1, 1)
    scanner = build_scanner("strip", false_alarms=0.1).fit(held)
    clean, triggered = drawn_inputs(federation, model, 1)
    scores = scanner.score(Samples(torch.cat([clean, triggered])))
    truth = [0] * len(clean) + [1] * len(triggered)
    flags = [score > scanner.threshold for score in scores]
    assert found.threshold == scanner.threshold
    assert found.auroc == pytest.approx(roc_auc_score(truth, scores))
    assert found.false_alarms == pytest.approx(sum(flags[: len(clean)]) / len(clean))
    assert found.found == pytest.approx(sum(flags[len(clean) :]) / len(triggered))


def test_an_attack_without_a_trigger_leaves_no_triggered_inputs() -> None:
    settings = ["attack=label_flip", "rounds=1", "num_clients=4", "attackers=1"]
    federation = build_federation(settings_from(compose_config(settings)))
    model = federation.new_model()
    clean, triggered = drawn_inputs(federation, model, 1)
    assert (len(clean), len(triggered)) == (64, 0)
    held = Held(clean=federation.probe_set(), spec=federation.task.spec, model=model)
    (found,) = judge_inputs(federation, held, ["strip"], 0.1, 1)
    assert (found.triggered, found.found, found.auroc) == (0, None, None)


def test_a_scan_that_fails_is_said_and_costs_nothing(tmp_path: Path) -> None:
    settings = settings_from(compose_config(["scan_final_model=true", "arms=[clean]"]))
    run = SyntheticRun(arms=("clean",)).write(tmp_path / "run")  # it has no checkpoints
    (run / "config.yaml").write_text(yaml.safe_dump(dict(settings.config)), encoding="utf-8")
    said = StringIO()
    scan_finished(run, settings, Console(file=said, width=400))
    assert "The final models were not scanned: No arm of" in said.getvalue()
    assert f"Again: fl-shield audit {run}" in said.getvalue()
    assert not (run / FOUND).exists()


def test_models_that_were_judged_at_their_inputs_only_say_so(tmp_path: Path) -> None:
    run = SyntheticRun(arms=("defended",)).write(tmp_path / "run")
    replace(FINDINGS, shadows=0, models=FINDINGS.models[2:]).write(run)
    page = build_report(run).read_text(encoding="utf-8")
    assert "No model was judged as a whole" in page
    assert 'id="final-models"' not in page
    assert len(rows(page, "final-inputs")) == 1


@pytest.mark.slow
def test_a_cell_of_a_study_is_scanned_where_it_was_played(tmp_path: Path) -> None:
    """Texts of two classes: no scanner of whole models, but one of inputs."""
    for name, count in (("train", 300), ("test", 60)):
        texts = [
            f"{'warm bright' if k % 2 else 'cold dark'} film number {k % 7}" for k in range(count)
        ]
        lines = [f"{text},{'ny'[k % 2]}" for k, text in enumerate(texts)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    overrides = ["data=text_csv", f"data.path={tmp_path}", "model=text_cnn", "tracking=none"]
    overrides += ["trigger.words=[number]"]
    overrides += ["rounds=1", "num_clients=3", "attackers=0", "arms=[clean]", "defence=none"]
    overrides += ["probes.num_samples=24", "scan_final_model=true"]
    cell = Cell(data="texts", attack="clean", trigger="", attackers=0, defence="none", seed=0)
    play(Job("one", cell, tuple(overrides), tmp_path / "cell"))
    found = read_final_models(tmp_path / "cell")
    assert found is not None
    (model,) = found.models
    assert (model.name, model.round, model.suspected) == ("clean", 1, None)
    assert [one.scanner for one in model.inputs] == ["meta_shield"]
    log = (tmp_path / "cell" / "progress.log").read_text(encoding="utf-8")
    assert f"Findings on the final models: {tmp_path / 'cell' / FOUND}." in log
