"""Chances of being malicious: against the likelihood that EM climbs, and what must hold of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from fl_shield.judge.posterior import (
    EXPECTED_SHARE,
    MAX_SHARE,
    MIN_SHARE,
    MOST_DOUBT,
    MOST_TRUST,
    WORTH,
    chances,
    remembered,
)  # fmt: skip

rounds = st.lists(st.floats(-30, 30), min_size=1, max_size=30)


@given(rounds)
def test_the_share_is_the_likeliest(odds: list[float]) -> None:
    """EM ends at the mode of the likelihood and the expectation, found here by another way."""
    values = np.array(odds)

    def unlikely(share: float) -> float:
        likelihood = np.logaddexp(np.log(share) + values, np.log1p(-share)).sum()
        expected = EXPECTED_SHARE * np.log(share) + (1.0 - EXPECTED_SHARE) * np.log1p(-share)
        return -float(likelihood + WORTH * expected)

    best = minimize_scalar(unlikely, bounds=(MIN_SHARE, MAX_SHARE), method="bounded",
                           options={"xatol": 1e-9}).x  # fmt: skip
    wanted = 1.0 / (1.0 + np.exp(-np.clip(values + np.log(best / (1.0 - best)), -50, 50)))
    np.testing.assert_allclose(chances(odds), wanted, atol=2e-3)


@given(rounds, st.randoms(use_true_random=False))
def test_chances_follow_the_clients(odds: list[float], random) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(odds)))
    random.shuffle(order)
    found = chances(odds)
    assert ((found >= 0.0) & (found <= 1.0)).all()
    np.testing.assert_array_equal(chances(np.array(odds)[order]), found[order])


def test_company_makes_a_client_suspicious() -> None:
    alone = chances([0.5, *[-4.0] * 19])[0]
    among = chances([0.5, *[4.0] * 8, *[-4.0] * 11])[0]
    assert alone < 0.1 < 0.3 < among
    expected = chances([0.5, *[-4.0] * 19], expected=0.3)[0]
    assert alone < expected
    assert len(chances([])) == 0


def test_the_past_fades_and_is_bounded() -> None:
    assert remembered(1.0, 0.5) == pytest.approx(1.4)
    assert remembered(1.0, -100.0) == pytest.approx(1.0 + 0.8 * MOST_TRUST)
    assert remembered(1.0, 100.0) == pytest.approx(1.0 + 0.8 * MOST_DOUBT)
