"""Runs of hostile rounds: no crash, a finite model, and nobody harmed by a reply that is rejected.

`make results-hostile` drives the same property over at least ten thousand rounds.
"""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.strategies._hostile_rounds import DETECTORS, INNER, PLANS, Plan, Tally, play
from tests.strategies._hostility import KINDS


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PLANS)
def test_hostile_rounds(tmp_path: Path, plan: Plan) -> None:
    play(plan, tmp_path)


@pytest.mark.parametrize("kind", [*KINDS, "moves"])
def test_one_of_each_kind(tmp_path: Path, kind: str) -> None:
    tally = Tally()
    honest = ("honest",) * 6
    play(Plan("FedAvg", "norm", {}, ((*honest, kind), (kind, *honest)), 0), tmp_path, tally)
    assert tally.rounds == 2
    assert tally.empty == 0


@pytest.mark.parametrize(
    ("inner", "detector"),
    # Bulyan takes most of a minute a run.
    [(i, d) for i in INNER for d in DETECTORS if i != "Bulyan" or d == "norm"],
)
def test_everything_at_once(tmp_path: Path, inner: str, detector: str) -> None:
    mixture = ("honest",) * 12 + tuple(kind for kind in KINDS if kind != "impostor")
    play(Plan(inner, detector, {}, (mixture,), 1), tmp_path)


def test_everybody_is_malformed(tmp_path: Path) -> None:
    tally = Tally()
    play(Plan("FedAvg", "norm", {}, (("NaN", "text", "no bytes"),) * 2, 0), tmp_path, tally)
    assert tally.empty == 2
