"""The untrained rule: hand-computed scores, equivariance, and silence where nothing differs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fl_shield.descriptors.standardise import standardise
from fl_shield.descriptors.table import DescriptorTable
from fl_shield.detector import Detector, default_detector
from fl_shield.detector.robust_rule import ALLOWANCE, CAP, RobustRule, Symptom

RULE = RobustRule([Symptom("up", +1, 0.1), Symptom("down", -1, 1.0)])
values = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.floats(-1e6, 1e6)
)


def table(raw: np.ndarray) -> DescriptorTable:
    return DescriptorTable(("up", "down"), raw, standardise(raw))


def test_scores_are_mean_symptoms_minus_the_allowance() -> None:
    raw = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.2, -4.0], [9.0, 9.0]])
    scores = RULE.score(table(raw))
    assert scores[0] == pytest.approx(-ALLOWANCE)
    assert scores[3] == pytest.approx((0.2 / 0.1 + 4.0 / 1.0) / 2 - ALLOWANCE)
    assert scores[4] == pytest.approx((CAP - CAP) / 2 - ALLOWANCE)


def test_reads_what_the_table_has() -> None:
    lone = DescriptorTable(("up",), np.array([[0.0], [0.0], [0.2]]), np.zeros((3, 1)))
    assert RULE.score(lone)[2] == pytest.approx(2.0 - ALLOWANCE)


@given(values, st.randoms(use_true_random=False))
def test_follows_the_clients_into_any_order(raw: np.ndarray, random) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(raw)))
    random.shuffle(order)
    np.testing.assert_allclose(
        RULE.score(table(raw[order])), RULE.score(table(raw))[order], atol=1e-9
    )


@given(values)
def test_scores_are_finite_and_bounded(raw: np.ndarray) -> None:
    scores = RULE.score(table(raw))
    assert np.isfinite(scores).all()
    assert (scores >= -CAP - ALLOWANCE).all()
    assert (scores <= CAP - ALLOWANCE).all()


def test_differences_under_the_unit_accuse_nobody() -> None:
    raw = np.zeros((10, 2))
    raw[0] = [0.05, -0.4]  # infinitely many MADs away, and still harmless
    assert RULE.score(table(raw)).max() < 0


def test_the_default_detector_is_a_detector() -> None:
    assert isinstance(default_detector(), Detector)
