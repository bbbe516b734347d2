"""Whole arms through the real client, strategies and shield, on a grid without an engine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.supercore.task_identity import TaskIdentity

from fl_shield.errors import FlShieldError, StateError
from fl_shield.simulations.client_app import make_client_app
from fl_shield.simulations.composing import compose_config
from fl_shield.simulations.nodes import RunStopped
from fl_shield.simulations.progress import Figures
from fl_shield.simulations.server_app import prepare, run_arms
from fl_shield.simulations.settings import Settings, settings_from
from fl_shield.simulations.summary import write_summary
from tests._loopback_grid import LoopbackGrid

CLIENTS = 6
SMALL = (
    f"num_clients={CLIENTS}", "attackers=2", "rounds=4", "warm_start.epochs=3",
    "probes.num_samples=20", "data.max_train=300", "data.max_test=80", "tracking=none",
    "training.epochs=1",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower stamps messages with the process's run, which its engine would have set.

    One thread, as in a run: with another number, sums come out otherwise in the last digits.
    """
    torch.set_num_threads(1)
    monkeypatch.setattr(TaskIdentity, "_run_id", 1)
    monkeypatch.setattr(TaskIdentity, "_task_id", 1)
    monkeypatch.setattr(TaskIdentity, "_node_id", 1)


class Silent:
    """A display that keeps what it is shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, int]] = []
        self._title = ""

    def start_arm(self, title: str, rounds: int, done: int) -> None:
        self._title = title

    def show_round(self, round_number: int, figures: Figures) -> None:
        self.shown.append((self._title, round_number))

    def stop(self) -> None:
        pass


def small(*overrides: str) -> Settings:
    return settings_from(compose_config([*SMALL, *overrides]))


def play(
    settings: Settings,
    folder: Path,
    session: int = 0,
    stop_before_push: int | None = None,
) -> Silent:
    """Run what is left of the arms; push 0 asks for the clients' numbers, all others train."""
    federation, tracker = prepare(settings, folder)
    stop, display = threading.Event(), Silent()

    def watch(pushes: int) -> None:
        if pushes == stop_before_push:
            stop.set()

    grid = LoopbackGrid(make_client_app(settings), settings.num_clients, session, watch)
    if stop_before_push is None:
        run_arms(grid, federation, folder, tracker, display, stop)
    else:
        with pytest.raises(RunStopped):
            run_arms(grid, federation, folder, tracker, display, stop)
    return display


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def figures(folder: Path, arm: str) -> list[dict[str, Any]]:
    """Return the records of an arm without what depends on the clock."""
    timeless = lines(folder / "arms" / arm / "rounds.jsonl")
    for record in timeless:
        record.pop("seconds", None)
        record.pop("shield_seconds", None)
    return timeless


def verdicts(folder: Path, arm: str) -> list[tuple[Any, ...]]:
    """Return round, client, decision and evidence of every verdict, by round and client."""
    truth = json.loads((folder / "arms" / arm / "truth.json").read_text())
    return sorted(
        (v["round"], truth[v["node_id"]]["partition_id"], v["decision"], v["evidence"])
        for v in lines(folder / "arms" / arm / "audit.jsonl")
    )


def test_the_record_of_every_round_is_complete_and_in_order(tmp_path: Path) -> None:
    settings = small("arms=[clean,undefended,defended,clean_defended]", "rounds=2")
    display = play(settings, tmp_path)
    for arm in settings.arms:
        records = lines(tmp_path / "arms" / arm.name / "rounds.jsonl")
        assert [r["round"] for r in records] == [0, 1, 2]
        assert all(0 <= r["main_accuracy"] <= 1 and 0 <= r["asr"] <= 1 for r in records)
        assert set(records[0]) == set(records[1])
        assert all(r["loss"] > 0 and r["seconds"] > 0 for r in records[1:])
        assert all((r["shield_seconds"] is not None) == arm.defended for r in records[1:])
        assert all((r["tpr"] is not None) == (arm.defended and arm.attacked) for r in records[1:])
        truth = json.loads((tmp_path / "arms" / arm.name / "truth.json").read_text())
        assert sum(entry["malicious"] for entry in truth.values()) == (2 if arm.attacked else 0)
        assert sorted(entry["partition_id"] for entry in truth.values()) == list(range(CLIENTS))
    assert [shown[1] for shown in display.shown] == [1, 2] * 4
    assert write_summary(tmp_path, settings)["finished"] is True


def test_all_arms_start_from_the_same_model(tmp_path: Path) -> None:
    play(small("rounds=1"), tmp_path)
    starts = [figures(tmp_path, arm)[0] for arm in ("clean", "undefended", "defended")]
    assert starts[0] == starts[1] == starts[2]


def test_without_attackers_the_attacked_arm_is_the_clean_one(tmp_path: Path) -> None:
    play(small("rounds=2", "attackers=0", "arms=[clean,undefended,defended]"), tmp_path)
    assert figures(tmp_path, "clean") == figures(tmp_path, "undefended")
    assert all(r["tpr"] is None for r in figures(tmp_path, "defended"))


def test_one_client_is_a_federation_in_which_nobody_is_suspected(tmp_path: Path) -> None:
    play(small("rounds=2", "num_clients=1", "attackers=0", "arms=[clean,defended]"), tmp_path)
    assert [v[2] for v in verdicts(tmp_path, "defended")] == ["keep", "keep"]
    clean, defended = figures(tmp_path, "clean"), figures(tmp_path, "defended")
    assert [r["main_accuracy"] for r in clean] == [r["main_accuracy"] for r in defended]


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedadam", "fedmedian", "fedavg_dp"])
def test_a_seed_is_a_result_whatever_ids_and_arrival(strategy: str, tmp_path: Path) -> None:
    settings = small("rounds=2", "arms=[defended]", f"strategy={strategy}", "fraction_train=0.67")
    for name, session in (("one", 1), ("two", 2)):
        play(settings, tmp_path / name, session)
    assert figures(tmp_path / "one", "defended") == figures(tmp_path / "two", "defended")
    assert verdicts(tmp_path / "one", "defended") == verdicts(tmp_path / "two", "defended")


def test_another_seed_is_another_result(tmp_path: Path) -> None:
    for seed in (0, 1):
        play(small("rounds=1", "arms=[clean]", f"seed={seed}"), tmp_path / str(seed))
    assert figures(tmp_path / "0", "clean") != figures(tmp_path / "1", "clean")


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedavgm"])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(strategy: str, tmp_path: Path) -> None:
    settings = small("arms=[undefended,defended]", f"strategy={strategy}")
    play(settings, tmp_path / "whole")
    parts = tmp_path / "parts"
    play(settings, parts, session=1, stop_before_push=7)  # 4 rounds of one arm, 2 of the other
    assert write_summary(parts, settings)["finished"] is False
    assert len(figures(parts, "defended")) == 3
    # Sessions that end before their first round must not lose whose evidence is whose.
    play(settings, parts, session=2, stop_before_push=0)
    play(settings, parts, session=3, stop_before_push=1)
    play(settings, parts, session=4)
    for arm in ("undefended", "defended"):
        assert figures(parts, arm) == figures(tmp_path / "whole", arm)
    assert verdicts(parts, "defended") == verdicts(tmp_path / "whole", "defended")
    assert write_summary(parts, settings)["finished"] is True


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    settings = small("rounds=1", "arms=[clean]")
    play(settings, tmp_path)
    before = (tmp_path / "arms/clean/rounds.jsonl").read_text()
    assert play(settings, tmp_path, session=1).shown == []
    assert (tmp_path / "arms/clean/rounds.jsonl").read_text() == before


def test_a_record_torn_by_the_interruption_is_written_again(tmp_path: Path) -> None:
    settings = small("rounds=3", "arms=[clean]")
    play(settings, tmp_path, stop_before_push=3)
    record = tmp_path / "arms/clean/rounds.jsonl"
    with record.open("a") as stream:
        stream.write('{"round": 3, "main_acc')
    play(settings, tmp_path, session=1)
    assert [r["round"] for r in lines(record)] == [0, 1, 2, 3]


def test_lost_names_of_nodes_are_an_error_and_not_a_guess(tmp_path: Path) -> None:
    settings = small("arms=[defended]")
    play(settings, tmp_path, stop_before_push=2)
    (tmp_path / "arms/defended/nodes.json").write_text('{"1": ')
    with pytest.raises(StateError, match=r"nodes\.json is damaged .*Delete"):
        play(settings, tmp_path, session=1)


def failing_clients(settings: Settings, failing: Callable[[int], bool]) -> Any:
    """Return a client app whose clients of some numbers answer every training with an error."""
    from flwr.app import Error, Message

    inner = make_client_app(settings)

    def answer(message: Message, context: Any) -> Message:
        if message.metadata.message_type == "train" and failing(
            int(context.node_config["partition-id"])
        ):
            return Message(Error(2, "out of memory"), reply_to=message)
        return inner(message, context)

    return answer


def test_failing_clients_do_not_stop_a_run_unless_all_fail(tmp_path: Path) -> None:
    settings = small("rounds=1", "arms=[defended]")
    for name, failing in (("some", lambda c: c < 2), ("all", lambda c: True)):
        federation, tracker = prepare(settings, tmp_path / name)
        grid = LoopbackGrid(failing_clients(settings, failing), CLIENTS)
        if name == "some":
            run_arms(grid, federation, tmp_path / name, tracker, Silent())
            assert len(figures(tmp_path / name, "defended")) == 2
        else:
            with pytest.raises(FlShieldError, match="Every client failed.*out of memory"):
                run_arms(grid, federation, tmp_path / name, tracker, Silent())
