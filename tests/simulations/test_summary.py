"""The summary: hand-computed figures of a hand-written run folder, finished or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fl_shield.simulations.composing import compose_config
from fl_shield.simulations.settings import Settings, settings_from
from fl_shield.simulations.summary import summary_table, write_summary


def settings(*overrides: str) -> Settings:
    return settings_from(
        compose_config(["rounds=2", "num_clients=3", "attackers=1", "tracking=none", *overrides])
    )


def write(
    folder: Path, arm: str, rounds: int = 2, audit: list[dict[str, Any]] | None = None
) -> None:
    where = folder / "arms" / arm
    where.mkdir(parents=True)
    records: list[dict[str, Any]] = [{"round": 0, "main_accuracy": 0.1, "asr": 0.0}]
    for number in range(1, rounds + 1):
        records.append({
            "round": number, "main_accuracy": 0.4 * number, "asr": 0.9 / 3 ** (number - 1),
            "loss": 1.0, "seconds": 2.0 * number,
            "shield_seconds": None if audit is None else 0.5 * number,
        })  # fmt: skip
    (where / "rounds.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    truth = {
        str(node): {"partition_id": node, "malicious": node == 0 and arm != "clean"}
        for node in range(3)
    }
    (where / "truth.json").write_text(json.dumps(truth))
    if audit is not None:
        (where / "audit.jsonl").write_text("".join(json.dumps(v) + "\n" for v in audit))


def verdict(number: int, node: int, decision: str, score: float | None = 1.0) -> dict[str, Any]:
    weight = {"keep": 1.0, "downweight": 0.3}.get(decision, 0.0)
    return {"round": number, "node_id": str(node), "decision": decision, "score": score,
            "evidence": score, "weight": weight, "reasons": [], "detail": ""}  # fmt: skip


AUDIT = [
    verdict(1, 0, "keep"), verdict(1, 1, "drop"), verdict(1, 2, "keep"),
    verdict(2, 0, "downweight"), verdict(2, 1, "keep"), verdict(2, 2, "reject", None),
]  # fmt: skip


def test_figures_are_those_of_the_last_round_and_means_over_rounds(tmp_path: Path) -> None:
    for arm in ("clean", "undefended"):
        write(tmp_path, arm)
    write(tmp_path, "defended", audit=AUDIT)
    summary = write_summary(tmp_path, settings())
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert summary["finished"] is True
    assert summary["seed"] == 0
    assert summary["config"]["num_clients"] == 3
    defended = summary["runs"]["defended"]
    assert defended["main_accuracy"] == pytest.approx(0.8)
    assert defended["asr"] == pytest.approx(0.3)
    assert defended["highest_asr"] == pytest.approx(0.9)
    assert defended["tpr"] == pytest.approx(1 / 2)  # one of two malicious updates
    assert defended["fpr"] == pytest.approx(1 / 3)  # the rejected reply was never judged
    assert defended["seconds_per_round"] == pytest.approx(3.0)
    assert defended["shield_share"] == pytest.approx(1.5 / 6)
    assert defended["rounds"] == 2
    assert summary["runs"]["clean"]["shield_share"] is None
    assert {"python", "flwr", "torch"} <= set(summary["versions"])


def test_late_means_are_over_the_last_third_of_the_rounds(tmp_path: Path) -> None:
    write(tmp_path, "clean", rounds=4)
    clean = write_summary(tmp_path, settings("arms=[clean]"))["runs"]["clean"]
    lines = (tmp_path / "arms" / "clean" / "rounds.jsonl").read_text().splitlines()
    last = [json.loads(line) for line in lines][-2:]  # a third of four, rounded up
    for late, name in (("late_asr", "asr"), ("late_main_accuracy", "main_accuracy")):
        assert clean[late] == pytest.approx((last[0][name] + last[1][name]) / 2)
        assert last[0][name] != last[1][name]


def test_a_run_that_is_not_finished_says_so(tmp_path: Path) -> None:
    (tmp_path / "arms").mkdir()
    nothing = write_summary(tmp_path, settings())
    assert (nothing["finished"], nothing["runs"]) == (False, {})
    write(tmp_path, "clean")
    write(tmp_path, "undefended", rounds=1)
    started = write_summary(tmp_path, settings())
    assert started["finished"] is False
    assert {arm: run["rounds"] for arm, run in started["runs"].items()} == {
        "clean": 2, "undefended": 1,
    }  # fmt: skip
    assert write_summary(tmp_path, settings("arms=[clean]"))["finished"] is True


def test_the_table_shows_every_arm_and_a_dash_for_what_is_not_known(tmp_path: Path) -> None:
    write(tmp_path, "clean")
    write(tmp_path, "defended", audit=AUDIT)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(summary_table(write_summary(tmp_path, settings())))
    rows = capture.get().splitlines()
    clean = next(row for row in rows if "no attack" in row)
    defended = next(row for row in rows if "attack, defended" in row)
    assert "80.0 %" in clean
    assert clean.count("–") == 3  # TPR, FPR, shield share
    for shown in ("80.0 %", "30.0 %", "50.0 %", "33.3 %", "3.00", "25.0 %"):
        assert shown in defended
