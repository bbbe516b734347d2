"""Standardised descriptors: robust z-scores that no input can break."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fl_shield.descriptors.standardise import standardise

any_floats = st.floats(allow_nan=True, allow_infinity=True, width=64)
matrices = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2), elements=any_floats)


@given(matrices)
def test_every_input_gives_finite_scores(raw: np.ndarray) -> None:
    assert np.isfinite(standardise(raw)).all()


@given(matrices, st.randoms(use_true_random=False))
def test_the_order_of_clients_does_not_matter(raw: np.ndarray, random) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(raw)))
    random.shuffle(order)
    np.testing.assert_allclose(standardise(raw[order]), standardise(raw)[order], atol=1e-9)


def test_matches_the_formula_on_a_hand_computed_column() -> None:
    raw = np.array([[0.0], [1.0], [2.0], [3.0], [100.0]])
    # median 2, deviations 2 1 0 1 98, MAD 1, normal scale 1.4826
    z = (100.0 - 2.0) / 1.4826
    assert standardise(raw)[4, 0] == pytest.approx(np.log1p(z), rel=0.02)
    assert standardise(raw)[2, 0] == 0.0


def test_one_client_has_nobody_to_differ_from() -> None:
    assert (standardise(np.array([[3.0, -1.0]])) == 0).all()
