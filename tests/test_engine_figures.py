"""The arithmetic of the engines' benchmark, its clock, and its table in the docs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.engines import (
    PAGE,
    RESULTS,
    TABLE,
    TimedApp,
    largest_difference,
    outside,
    play,
    table,
)
from benchmarks.marked_table import read_table
from fl_shield.simulations.composing import compose_config
from fl_shield.simulations.settings import settings_from
from fl_shield.simulations.study_grid import OneProcessGrid


def run(engine: str, seed: int, seconds: float, training: float, loss: float = 0.5) -> Any:
    return {
        "engine": engine, "seed": seed, "seconds": seconds, "start_and_end": 1.0,
        "training": training, "trainings": 100,
        "figures": [{"main_accuracy": 0.5, "asr": None, "loss": None},
                    {"main_accuracy": 0.9, "asr": 0.25, "loss": loss}],
    }  # fmt: skip


def test_the_table_adds_up() -> None:
    runs = [run("flower", 0, 20, 4), run("in_process", 0, 8, 4),
            run("flower", 1, 30, 6), run("in_process", 1, 12, 6)]  # fmt: skip
    assert outside(runs[::2]) == pytest.approx(0.8)
    lines = table(runs).splitlines()
    assert lines[2] == "| `flower` | 25.0 | 1.0 | 5.0 | 19.0 | 80 % |"
    assert lines[3] == "| `in_process` | 10.0 | 1.0 | 5.0 | 4.0 | 50 % |"
    assert "2 seeds, 100 trainings each" in lines[-1]
    assert "are the same to the last bit" in lines[-1]


def test_a_difference_between_engines_is_told_and_one_between_seeds_is_none() -> None:
    runs = [run("flower", 0, 20, 4), run("in_process", 0, 8, 4),
            run("flower", 1, 30, 6, loss=0.75), run("in_process", 1, 12, 6, loss=0.5)]  # fmt: skip
    assert largest_difference(runs) == 0.25
    assert "differ by up to 0.25" in table(runs)
    assert largest_difference([runs[0], runs[1]]) == 0


def test_the_clock_counts_trainings_and_nothing_else(tmp_path: Path) -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        time.sleep(0.02)
        return Message(RecordDict(), reply_to=message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        time.sleep(0.02)
        return Message(RecordDict(), reply_to=message)

    settings = settings_from(compose_config(["data.max_train=200", "num_clients=4"]))
    grid = OneProcessGrid(TimedApp(app, settings, tmp_path), 3)
    for kind in ("train", "query", "train"):
        messages = [
            Message(RecordDict(), dst_node_id=node, message_type=kind)
            for node in grid.get_node_ids()
        ]
        replies = list(grid.send_and_receive(messages))
        assert [reply.error.reason for reply in replies if reply.has_error()] == []
    (file,) = tmp_path.glob("*.txt")
    seconds = [float(line) for line in file.read_text().split()]
    assert len(seconds) == 6
    assert min(seconds) >= 0.02


def test_what_is_played_is_the_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "benchmarks.engines.SETTINGS",
        ("rounds=2", "num_clients=4", "attackers=1", "data.max_train=200", "data.max_test=40",
         "arms=[undefended]", "tracking=none"),
    )  # fmt: skip
    found = play("in_process", 3, tmp_path / "run")
    assert found["trainings"] == 8
    assert 0 < found["training"] < found["seconds"]
    assert len(found["figures"]) == 3, "round 0 is the initial model"


def test_the_table_of_the_docs_is_that_of_the_results() -> None:
    record = json.loads((RESULTS / "engines.json").read_text(encoding="utf-8"))
    assert read_table(PAGE, TABLE) == table(record["runs"])
