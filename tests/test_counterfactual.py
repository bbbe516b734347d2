"""What the model would have been, against averages worked out by hand."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_shield.cohort import ClientUpdate, Cohort
from fl_shield.counterfactual import counterfactual

REFERENCE: dict[str, NDArray[Any]] = {
    "w": np.array([1.0, 1.0], dtype=np.float32),
    "n": np.asarray(4, dtype=np.int64),
}


def client(node: int, examples: float, value: float) -> ClientUpdate:
    state: dict[str, NDArray[Any]] = {
        "w": np.full(2, value, dtype=np.float32),
        "n": np.asarray(6, dtype=np.int64),
    }
    return ClientUpdate(node, examples, lambda: state)


COHORT = Cohort(7, REFERENCE, (client(1, 10, 2.0), client(2, 20, 3.0), client(3, 10, 9.0)))


def test_a_dropped_client() -> None:
    found = counterfactual(COHORT, {3: 0.0}, max_client_share=1.0)
    assert found.round_number == 7
    assert found.held_back == (3,)
    assert found.passed is not None
    np.testing.assert_allclose(found.passed["w"], (10 * 2 + 20 * 3) / 30)
    np.testing.assert_allclose(found.everybody["w"], (10 * 2 + 20 * 3 + 10 * 9) / 40)
    assert found.step == pytest.approx(np.hypot(3.25, np.hypot(3.25, 2)))
    assert found.everybody["w"].dtype == np.float32
    assert found.everybody["n"] == 6


def test_a_client_passed_on_in_part_moves_its_part_of_the_way() -> None:
    found = counterfactual(COHORT, {3: 0.5}, max_client_share=1.0)
    assert found.passed is not None
    np.testing.assert_allclose(found.passed["w"], (10 * 2 + 20 * 3 + 10 * 5) / 40)


def test_shares_are_bounded_as_in_the_shield() -> None:
    loud = Cohort(1, REFERENCE, (*COHORT.clients[:2], client(3, 1e9, 9.0)))
    found = counterfactual(loud, {}, max_client_share=0.5)
    np.testing.assert_allclose(found.everybody["w"], (10 * 2 + 20 * 3 + 30 * 9) / 60)


def test_nobody_passed() -> None:
    found = counterfactual(COHORT, {1: 0.0, 2: 0.0, 3: 0.0}, max_client_share=1.0)
    assert found.passed is None
    assert found.distance == pytest.approx(found.step)
