"""Figures of merit against hand-computed cases and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from benchmarks.detection_figures import (
    by_harm,
    clean_rate,
    deployed,
    evidence_after,
    figures,
    tpr,
)
from fl_shield.shadow.table import EpisodeTable


def episode(number: int, malicious: list[bool], harm: list[float], run: str = "a") -> EpisodeTable:
    count = len(malicious)
    return EpisodeTable(
        "a", run, number, ("x",), np.zeros((count, 1)), np.array(malicious), np.arange(count),
        {"harm": harm, "wrappers": ["none" if bad else None for bad in malicious]},
    )  # fmt: skip


def test_tpr_of_a_hand_computed_case() -> None:
    benign = np.arange(200.0)
    scores = np.concatenate([benign, [197.5, 300.0, 10.0]])
    truth = np.arange(203) >= 200
    # Two of 200 may exceed the threshold, which is thus the third largest benign score, 197.
    assert tpr(scores, truth) == pytest.approx(2 / 3)
    weights = np.concatenate([np.zeros(200), [1.0, 0.0, 3.0]])
    assert tpr(scores, truth, weights) == pytest.approx(0.25)
    assert tpr(scores[:200], truth[:200]) is None
    assert tpr(scores, truth, np.zeros(203)) is None


@given(st.integers(0, 1000), st.floats(0.01, 0.5))
def test_tpr_agrees_with_scikit_learn(seed: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(150) < 0.4
    truth[:2] = [True, False]
    scores = rng.standard_normal(150) + truth
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    best = true[false <= np.floor(rate * (~truth).sum() + 1e-9) / (~truth).sum() + 1e-12].max()
    assert tpr(scores, truth, false_alarms=rate) == pytest.approx(best)


def test_evidence_gathers_over_five_rounds_of_one_kind() -> None:
    kinds = [[False, False]] + [[True, False]] * 5
    tables = [episode(n + 1, kind, [0.0, 0.0]) for n, kind in enumerate(kinds)]
    scores = [np.array([float(n), 1.0]) for n in range(6)]
    evidence, truth = evidence_after(tables, scores)
    weights = 0.8 ** np.arange(4, -1, -1)
    # The first client is malicious in its last five rounds, the second has two benign windows.
    assert truth.tolist() == [True, False, False]
    np.testing.assert_allclose(
        evidence, [weights @ np.arange(1.0, 6.0), weights.sum(), weights.sum()]
    )
    found = deployed(tables, scores)
    assert found == {"excluded_malicious": 1.0, "excluded_benign": 1.0}


def test_attackers_are_told_apart_by_their_harm() -> None:
    tables = [
        episode(1, [True, True, False, False], [0.01, 0.5, 0.9, 0.0]),
        episode(2, [True, False, False, False], [0.0, 0.0, 0.0, 0.0]),
        episode(3, [True, True], [0.2, 0.2]),  # nobody to compare with
    ]
    scores = [np.array([0.0, 9.0, 1.0, -1.0]), np.array([2.0, 1.0, 0.0, 3.0]), np.zeros(2)]
    found = by_harm(tables, scores)
    assert found["below 2"] == {"auroc": pytest.approx((1 / 2 + 2 / 3) / 2), "malicious": 2}
    assert found["30 and more"] == {"auroc": 1.0, "malicious": 1}
    assert found["10 to 30"] == {"auroc": None, "malicious": 0}


def test_auroc_is_the_mean_over_rounds_with_both_kinds() -> None:
    tables = [
        episode(1, [True, False, False], [0.2, 0.0, 0.0]),
        episode(2, [True, True, False], [-0.1, 0.4, 0.0]),
        episode(1, [False, False, False], [0.0] * 3, run="clean"),
    ]
    scores = [np.array([1.0, 0.0, 2.0]), np.array([3.0, 1.0, 2.0]), np.array([0.0, 5.0, 1.0])]
    found = figures(tables, scores)
    assert found["auroc"] == pytest.approx((0.5 + 0.5) / 2)
    assert (found["rounds"], found["rounds_with_both"], found["seeds"]) == (3, 2, 2)
    assert (found["updates"], found["malicious"]) == (9, 3)
    rate, updates = clean_rate(tables, scores, 1.0)
    assert rate == pytest.approx(2 / 3)
    assert updates == 3
