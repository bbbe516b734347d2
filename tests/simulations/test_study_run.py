"""Cells in one process: the same figures as any grid gives; errors, time left, parallel jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from rich.console import Console

from fl_shield.errors import ConfigurationError
from fl_shield.simulations.client_app import make_client_app
from fl_shield.simulations.composing import compose_config
from fl_shield.simulations.federation import build_federation
from fl_shield.simulations.in_parallel import in_parallel
from fl_shield.simulations.progress import PlainLines
from fl_shield.simulations.server_app import prepare, run_arms
from fl_shield.simulations.settings import settings_from
from fl_shield.simulations.study_cells import Cell
from fl_shield.simulations.study_grid import OneProcessGrid
from fl_shield.simulations.study_job import Job, Reference, measure_reference, play, read_reference
from fl_shield.simulations.study_progress import StudyProgress
from fl_shield.strategies.checkpoint import read_checkpoint
from tests._loopback_grid import LoopbackGrid

TINY = ("num_clients=4", "data.max_train=160", "data.max_test=60", "training.epochs=1",
        "warm_start.epochs=5", "probes.num_samples=16", "tracking=none", "attackers=1")  # fmt: skip


def job(folder: Path, *overrides: str, attackers: float = 1, defence: str = "none") -> Job:
    cell = Cell("digits", "badnets", "patch", attackers, defence, 0)
    return Job("study", cell, (*TINY, "seed=0", f"arms=[{cell.arm.name}]", *overrides), folder)


def curve(folder: Path, arm: str) -> list[tuple[float, float]]:
    lines = (folder / "arms" / arm / "rounds.jsonl").read_text().splitlines()
    return [(record["main_accuracy"], record["asr"]) for record in map(json.loads, lines)]


def test_a_cell_comes_to_what_any_grid_comes_to(tmp_path: Path) -> None:
    figures = play(job(tmp_path / "cell", "rounds=3"))
    settings = settings_from(compose_config([*TINY, "arms=[undefended]", "rounds=3"]))
    federation, tracker = prepare(settings, tmp_path / "other")
    grid = LoopbackGrid(make_client_app(settings), settings.num_clients, session=5)
    display = PlainLines(Console(quiet=True))
    run_arms(grid, federation, tmp_path / "other", tracker, display)
    assert curve(tmp_path / "cell", "undefended") == curve(tmp_path / "other", "undefended")
    assert (figures["rounds"], figures["seconds"] > 0) == (3, True)
    assert json.loads((tmp_path / "cell" / "cell.json").read_text())["attack"] == "badnets"
    assert "attack, no defence: round 3/3" in (tmp_path / "cell" / "progress.log").read_text()


def test_a_cell_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    play(job(tmp_path / "whole", "rounds=3"))
    play(job(tmp_path / "parts", "rounds=2"))
    play(job(tmp_path / "parts", "rounds=3"))
    assert curve(tmp_path / "whole", "undefended") == curve(tmp_path / "parts", "undefended")


def test_cells_start_from_the_clean_rounds_of_another(tmp_path: Path) -> None:
    play(job(tmp_path / "warm", "rounds=2", attackers=0))
    checkpoint = tmp_path / "warm" / "arms" / "clean" / "checkpoint"
    play(job(tmp_path / "cell", "rounds=1", f"warm_start.checkpoint={checkpoint}"))
    last, first = curve(tmp_path / "warm", "clean")[-1], curve(tmp_path / "cell", "undefended")[0]
    assert first == last, "round 0 is the model of the last clean round"
    with pytest.raises(ConfigurationError, match="`warm_start.checkpoint` to be a folder with"):
        play(job(tmp_path / "none", "rounds=1", f"warm_start.checkpoint={tmp_path}"))
    with pytest.raises(ConfigurationError, match="is that of another model"):
        play(job(tmp_path / "mlp", "rounds=1", "model=mlp", f"warm_start.checkpoint={checkpoint}"))


def test_one_clean_run_is_held_against_every_attack(tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    play(job(clean, "rounds=2", attackers=0))
    found = measure_reference(
        Reference(clean, {"badnets-patch": TINY, "badnets-blend": (*TINY, "trigger=blend")})
    )
    assert found == read_reference(clean)
    assert found["badnets-patch"] == curve(clean, "clean")[-1][1], "its own trigger is the patch"
    assert 0 <= (found["badnets-blend"] or 0) <= 1
    (clean / "reference.json").write_text("{")
    assert read_reference(clean) == {}


def test_a_client_that_fails_is_an_error_reply() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: object) -> Message:
        raise RuntimeError("out of luck")

    grid = OneProcessGrid(app, 2)
    content = RecordDict({"config": ConfigRecord({"server-round": 1})})
    messages = [
        Message(content, dst_node_id=node, message_type="train") for node in grid.get_node_ids()
    ]
    replies = list(grid.send_and_receive(messages))
    assert [reply.has_error() for reply in replies] == [True, True]
    assert "out of luck" in str(replies[0].error.reason)
    assert {r.metadata.src_node_id for r in replies} == set(grid.get_node_ids())
    assert list(grid.pull_messages(["unknown"])) == []


def double(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return 2 * number


def test_what_a_job_raises_is_its_result() -> None:
    found = dict(in_parallel(double, [1, 2, 3], workers=1))
    assert (found[1], found[2], str(found[3])) == (2, 4, "three")


def test_the_time_left_follows_the_pace_of_this_session(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([100.0, 160.0, 220.0])
    console = Console(width=200, force_terminal=False)
    with StudyProgress(console, "study", 5, 2, clock=lambda: next(times)) as progress:
        progress.finished("one", {"asr": 0.5, "seconds": 59.6})
        progress.failed("two", ValueError("no luck\nmore"))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "[3/5] one: attack success 50.0 %  in 60 s  (about 2 min left)",
        "[4/5] two: failed, no luck  (about 60 s left)",
    ]


def test_the_checkpoint_of_a_cell_is_that_of_its_last_round(tmp_path: Path) -> None:
    play(job(tmp_path / "cell", "rounds=1"))
    found = read_checkpoint(tmp_path / "cell/arms/undefended/checkpoint")
    assert found is not None
    assert found.round_number == 1
    federation = build_federation(settings_from(compose_config([*TINY, "arms=[undefended]"])))
    assert set(found.arrays) == set(federation.new_model().state_dict())
