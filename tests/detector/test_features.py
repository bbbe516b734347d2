"""Features: channels computed by hand, equivariance, missing columns, and finiteness."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from fl_shield.detector.features import (
    CHANNELS,
    FLOOR_SHARE,
    FeatureSpec,
    features_of,
    fit_features,
)

SPEC = FeatureSpec(("a", "b", "c"), (0.5, 2.0, 1.0))
NAMES = ("a", "b", "c")
COLUMNS = len(SPEC.names)

any_floats = st.floats(allow_nan=True, allow_infinity=True, width=64)
tables = hnp.arrays(
    np.float64, st.tuples(st.integers(0, 12), st.just(COLUMNS)), elements=any_floats
)


@dataclass(frozen=True)
class Table:
    names: tuple[str, ...]
    raw: NDArray[np.float64]
    malicious: NDArray[np.bool_]


def test_the_channels_of_a_column_by_hand() -> None:
    # Median 2, deviations 2 1 0 1 8, MAD 1.
    raw = np.array([[0.0], [1.0], [2.0], [3.0], [10.0]])
    found = features_of(FeatureSpec(("a",), (0.5,)), ("a",), raw)
    spread = 1.4826 * 1.0 + FLOOR_SHARE * 0.5
    highest, lowest = np.log1p([8 / spread, 16.0]), -np.log1p([2 / spread, 4.0])
    np.testing.assert_allclose(found[4], [*highest, 1.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(found[0], [*lowest, 1.0, -1.0], rtol=1e-6)
    np.testing.assert_allclose(found[2], [0.0, 0.0, 1.0, 0.0])


def test_a_hair_in_a_quiet_cohort_is_small_in_absolute_terms() -> None:
    raw = np.zeros((9, 1))
    raw[:, 0] = 1e-6 * np.arange(9)
    found = features_of(FeatureSpec(("a",), (1.0,)), ("a",), raw)
    assert np.abs(found[:, :2]).max() < 1e-3


def test_clients_that_are_alike_share_their_rank() -> None:
    raw = np.array([[5.0], [1.0], [5.0], [np.inf], [1.0]])
    found = features_of(FeatureSpec(("a",), (1.0,)), ("a",), raw)[:, 3]
    np.testing.assert_allclose(found, [0.25, -0.75, 0.25, 1.0, -0.75])


def test_missing_and_unknown_columns() -> None:
    raw = np.array([[1.0, 7.0], [2.0, 8.0], [4.0, 90.0]])
    found = features_of(SPEC, ("c", "never seen"), raw)
    assert found.shape == (3, CHANNELS * COLUMNS)
    assert found[:, 6:9].tolist() == [[0.0, 0.0, 1.0]] * 3
    assert found[:, 9:].tolist() == [[0.0, 0.0, -1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    assert not found[:, [0, 1, 3, 4]].any()
    alone = features_of(SPEC, ("c",), raw[:, :1])
    np.testing.assert_array_equal(found, alone)


def test_the_order_of_a_tables_columns_does_not_matter() -> None:
    raw = np.random.default_rng(0).standard_normal((7, 3))
    turned = features_of(SPEC, NAMES[::-1], raw[:, ::-1])
    np.testing.assert_array_equal(turned, features_of(SPEC, NAMES, raw))


@given(tables, st.randoms(use_true_random=False))
def test_features_are_finite_and_follow_their_clients(raw: np.ndarray, random: object) -> None:
    found = features_of(SPEC, NAMES, raw)
    assert found.shape == (len(raw), CHANNELS * COLUMNS)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    order = list(range(len(raw)))
    random.shuffle(order)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(features_of(SPEC, NAMES, raw[order]), found[order])


@pytest.mark.parametrize("clients", [0, 1, 2, 3, 20, 1000])
def test_any_number_of_clients(clients: int) -> None:
    raw = np.random.default_rng(1).standard_normal((clients, 3))
    found = features_of(SPEC, NAMES, raw)
    assert found.shape == (clients, CHANNELS * COLUMNS)
    compared = np.delete(found, range(6, 9), axis=1)
    if clients == 1:
        assert not compared.any()  # it is its own median
    if clients == 2:
        np.testing.assert_allclose(compared[0], -compared[1], rtol=1e-6)


def test_units_are_the_typical_spread_of_honest_clients() -> None:
    quiet = Table(("a",), np.array([[0.0], [1.0], [2.0], [999.0]]), np.array([0, 0, 0, 1], bool))
    loud = Table(("a",), np.array([[0.0], [3.0], [6.0]]), np.zeros(3, bool))
    louder = Table(("b", "a"), np.array([[5.0, 0.0], [5.0, 5.0], [5.0, 10.0]]), np.zeros(3, bool))
    spec = fit_features([louder, quiet, loud])
    assert spec.names == ("a", "b")
    assert spec.units[0] == pytest.approx(1.4826 * 3.0)  # median of MADs 1, 3 and 5
    assert 0.0 < spec.units[1] < 1e-3  # no spread at all, and yet nothing is divided by zero


def test_a_column_in_which_most_are_alike_has_the_unit_of_those_who_are_not() -> None:
    still = Table(("a",), np.full((5, 1), 0.2), np.zeros(5, bool))
    rare = Table(("a",), np.array([[0.2], [0.2], [0.2], [0.2], [0.7]]), np.zeros(5, bool))
    spec = fit_features([still, still, rare])
    assert spec.units[0] == pytest.approx(0.3 * 0.2)  # the five differ by √(0.8 · 0.2) · 0.5
