"""No client outweighs its share, and nobody is lowered more than that takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shield.judge.influence import attainable_share, bound_claims

CLAIMS = st.dictionaries(st.integers(0, 10**6), st.floats(1e-6, 1e12), min_size=1, max_size=30)


def test_a_hand_computed_case() -> None:
    # x = 0.4 · (10 + 20 + 30 + x) = 40, so that only the last claim is lowered.
    claims = {1: 10.0, 2: 20.0, 3: 30.0, 4: 1000.0}
    assert bound_claims(claims, 0.4) == pytest.approx({1: 10.0, 2: 20.0, 3: 30.0, 4: 40.0})


def test_two_large_claims_share_one_limit() -> None:
    # x = 0.4 · (10 + 10 + 2x) = 40.
    claims = {1: 10.0, 2: 10.0, 3: 500.0, 4: 900.0}
    assert bound_claims(claims, 0.4) == pytest.approx({1: 10.0, 2: 10.0, 3: 40.0, 4: 40.0})


def test_modest_claims_are_left_alone() -> None:
    claims = {1: 10.0, 2: 12.0, 3: 9.0, 4: 11.0}
    assert bound_claims(claims, 0.5) == claims


def test_nobody_and_somebody_alone() -> None:
    assert bound_claims({}, 0.25) == {}
    assert bound_claims({7: 3.0}, 0.25) == {7: 3.0}


@given(CLAIMS, st.floats(0.01, 1.0))
def test_shares_are_bounded(claims: dict[int, float], max_share: float) -> None:
    bounded = bound_claims(claims, max_share)
    share = attainable_share(max_share, len(claims))
    assert list(bounded) == list(claims)
    assert max(bounded.values()) <= share * sum(bounded.values()) * (1 + 1e-6)
    assert all(0 < bounded[client] <= claims[client] for client in claims)


@given(CLAIMS, st.floats(0.01, 1.0))
def test_whoever_is_lowered_stands_at_the_limit(claims: dict[int, float], max_share: float) -> None:
    bounded = bound_claims(claims, max_share)
    limit = max(bounded.values())
    lowered = [bounded[client] for client in claims if bounded[client] < claims[client]]
    assert lowered == pytest.approx([limit] * len(lowered))


@given(CLAIMS, st.floats(0.01, 1.0), st.floats(1.0, 1e6))
def test_claiming_more_never_lowers_the_others(
    claims: dict[int, float], max_share: float, factor: float
) -> None:
    liar = next(iter(claims))
    honest = bound_claims(claims, max_share)
    lied = bound_claims({**claims, liar: claims[liar] * factor}, max_share)
    assert all(lied[c] >= honest[c] * (1 - 1e-9) for c in claims if c != liar)
