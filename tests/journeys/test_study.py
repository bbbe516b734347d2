"""`fl-shield study` and `fl-shield report` from start to end, in processes of their own."""

import csv
import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.journeys._commands import run, start

pytestmark = pytest.mark.slow

TINY = (
    "study", "num_clients=6", "data.max_train=240", "data.max_test=80", "training.epochs=1",
    "warm_start.epochs=5",
)  # fmt: skip


@pytest.mark.timeout(600)
def test_a_study_is_run_once_and_its_damage_is_named(tmp_path: Path) -> None:
    """The study `smoke`, made smaller: two attacks and none, three defences, one seed."""
    options = (*TINY, "rounds=2")
    status, output, errors = run(*options, cwd=tmp_path, timeout=550)
    assert status == 0, errors
    home = tmp_path / "studies" / "smoke"
    cells = sorted(home.glob("digits-*"))
    assert len(cells) == 3 + 2 * 3
    assert "[9/9]" in output
    assert "left)" in output, "the time left is told"
    for folder in cells:
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["finished"] is True
        assert len(summary["runs"]) == 1, "a cell is one arm"
    report = home / "report"
    assert (report / "report.html").stat().st_size > 20_000
    with (report / "results.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert {row["defence"] for row in rows} == {"none", "flame", "meta_shield"}
    attacked = [row for row in rows if float(row["attackers"])]
    assert all(row["clean_ma"] and row["clean_asr"] for row in attacked)
    assert {row["seen"] for row in rows if row["defence"] == "meta_shield"} == {"yes"}

    kept = {folder: (folder / "summary.json").stat().st_mtime_ns for folder in cells}
    broken = home / "digits-clean-flame-seed0"
    with (broken / "arms/clean_defended/rounds.jsonl").open("a") as stream:
        stream.write('{"round": 3, "main_ac')
    del kept[broken]
    status, output, errors = run(*options, cwd=tmp_path, timeout=300)
    assert status == 0, errors
    assert "digits-clean-flame-seed0 is damaged" in output
    assert "line 4: damaged or cut short" in output
    assert (home / "damaged" / "digits-clean-flame-seed0.1").is_dir()
    assert json.loads((broken / "summary.json").read_text())["finished"] is True
    for folder, when in kept.items():
        assert (folder / "summary.json").stat().st_mtime_ns == when, "finished cells are skipped"

    status, _, errors = run(*TINY, "rounds=3", cwd=tmp_path)
    assert status == 2
    assert "rounds was 2, and is now 3" in errors
    two = [str(folder) for folder in cells[:2]]
    status, output, errors = run("report", *two, "--out", "two", cwd=tmp_path)
    assert status == 0, errors
    assert len((tmp_path / "two" / "results.csv").read_text().splitlines()) == 3


BROKEN_TRIGGER = """
class Broken:
    modality = None

    def bind(self, task):
        return self

    def apply(self, inputs, generator=None):
        raise RuntimeError("this trigger cannot be shown")
"""


@pytest.mark.timeout(400)
def test_a_failed_cell_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    """A trigger of the user's own that breaks only when it is used: no check can see it before."""
    (tmp_path / "mine.py").write_text(BROKEN_TRIGGER)
    (tmp_path / "own" / "trigger").mkdir(parents=True)
    (tmp_path / "own" / "trigger" / "broken.yaml").write_text("_target_: mine.Broken\n")
    options = (*TINY, "rounds=1", "attacks=[badnets]", "defences=[none]")
    own = ("--config-dir", "own")
    status, output, errors = run(*options, "triggers=[broken,patch]", *own, cwd=tmp_path)
    assert status == 1, errors
    failed = "digits-badnets-broken-0.25-none-seed0"
    assert f"{failed} failed: RuntimeError: this trigger cannot be shown" in output
    assert f"{failed}/flower.log" in output
    home = tmp_path / "studies" / "smoke"
    for name in ("digits-clean-none-seed0", "digits-badnets-patch-0.25-none-seed0"):
        assert json.loads((home / name / "summary.json").read_text())["finished"] is True
    assert (home / "report" / "report.html").is_file()
    status, _, errors = run(*options, "triggers=[brokn]", *own, cwd=tmp_path)
    assert status == 2
    assert "Unknown trigger 'brokn'. Did you mean 'broken'?" in errors


@pytest.mark.timeout(400)
def test_an_interrupted_study_goes_on(tmp_path: Path) -> None:
    grid = ("attacks=[badnets]", "defences=[none]", "attackers=[0.25]")
    rounds = 120
    options = (*TINY, "workers=1", f"rounds={rounds}", *grid)
    process = start(*options, cwd=tmp_path)
    folder = tmp_path / "studies" / "smoke" / "digits-badnets-patch-0.25-none-seed0"
    record = folder / "arms" / "undefended" / "rounds.jsonl"
    deadline = time.monotonic() + 200
    while not (record.exists() and len(record.read_text().splitlines()) >= 3):
        assert time.monotonic() < deadline, "the study did not get to round 2"
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    done = len(record.read_text().splitlines()) - 1
    assert done < rounds, f"the study was too fast to be interrupted: {output[-2000:]}"
    assert process.returncode == 130, output[-2000:]
    assert "interrupted" in errors
    status, _, errors = run(*options, cwd=tmp_path)
    assert status == 0, errors
    assert "going on after round" in (folder / "progress.log").read_text()
    numbers = [json.loads(line)["round"] for line in record.read_text().splitlines()]
    assert numbers == list(range(rounds + 1))
