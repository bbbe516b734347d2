"""`fl-shield simulate` from start to end, in Flower's real simulation engine."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.journeys._commands import SMALL, run, start

pytestmark = pytest.mark.slow


def figures(folder: Path, arm: str) -> list[tuple[int, float, float]]:
    lines = (folder / "arms" / arm / "rounds.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [(r["round"], r["main_accuracy"], r["asr"]) for r in records]


@pytest.mark.timeout(400)
def test_three_arms_leave_everything_a_person_looks_for(tmp_path: Path) -> None:
    status, output, errors = run(
        "simulate", *SMALL, "rounds=3", "run_name=one", cwd=tmp_path, timeout=350
    )
    assert status == 0, errors
    folder = tmp_path / "runs" / "one"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["finished"] is True
    assert summary["seed"] == 0
    assert set(summary["runs"]) == {"clean", "undefended", "defended"}
    for arm in summary["runs"].values():
        assert 0 <= arm["main_accuracy"] <= 1
        assert 0 <= arm["asr"] <= 1
    defended = summary["runs"]["defended"]
    assert 0 < defended["shield_share"] < 1
    assert defended["tpr"] is not None
    assert summary["config"]["num_clients"] == 6
    assert {"python", "flwr", "torch"} <= set(summary["versions"])
    audit = (folder / "arms/defended/audit.jsonl").read_text().splitlines()
    verdicts = [json.loads(line) for line in audit]
    assert len(verdicts) == 3 * 6
    assert all({"round", "node_id", "score", "evidence", "decision"} <= set(v) for v in verdicts)
    assert (folder / "report.html").stat().st_size > 10_000
    assert list((folder / "plots").glob("*.png"))
    assert list((folder / "wandb").glob("offline-run-*"))
    for shown in ("attack, defended", "report.html", "audit.jsonl", "summary.json", "wandb"):
        assert shown in output
    status, output, errors = run("report", str(folder), cwd=tmp_path)
    assert (status, output.strip()) == (0, str(folder / "report.html"))


@pytest.mark.timeout(500)
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    options = [*SMALL, "rounds=6", "arms=[defended]", "tracking=none", "strategy=fedadam"]
    process = start("simulate", *options, "run_name=stopped", cwd=tmp_path)
    folder = tmp_path / "runs" / "stopped"
    record = folder / "arms" / "defended" / "rounds.jsonl"
    deadline = time.monotonic() + 120
    while not (record.exists() and len(record.read_text().splitlines()) >= 4):
        assert time.monotonic() < deadline, "the run did not get to round 3"
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume" in output
    done = len(record.read_text().splitlines()) - 1
    assert done < 6, "the run was too fast to be interrupted"
    assert json.loads((folder / "summary.json").read_text())["finished"] is False
    status, _, errors = run("simulate", "--resume", str(folder), cwd=tmp_path)
    assert status == 0, errors
    status, _, errors = run("simulate", *options, "run_name=whole", cwd=tmp_path)
    assert status == 0, errors
    whole = tmp_path / "runs" / "whole"
    assert figures(folder, "defended") == figures(whole, "defended")
    assert _evidence(folder) == _evidence(whole)


def _evidence(folder: Path) -> dict[tuple[int, int], float]:
    """Return the evidence by round and client; node ids differ from run to run."""
    truth = json.loads((folder / "arms/defended/truth.json").read_text())
    lines = (folder / "arms/defended/audit.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {
        (r["round"], truth[r["node_id"]]["partition_id"]): round(r["evidence"], 4) for r in records
    }
