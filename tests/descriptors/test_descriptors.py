"""Descriptors against hand-computed cases, and their promised invariances."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fl_shield.descriptors.activation import describe_activations
from fl_shield.descriptors.geometry import describe_geometry, head_energy
from fl_shield.descriptors.response import describe_response
from fl_shield.descriptors.tokens import (
    JOINT,
    NUM_GUIDED,
    OWN,
    SHARED,
    describe_surplus,
    describe_tokens,
    excess_motion,
    insert_tokens,
    row_motion,
    row_pull,
    shared_tokens,
    surplus_motion,
    suspected_tokens,
)
from fl_shield.errors import ModelError
from fl_shield.probes.candidates import choose_phrases

seeds = st.integers(0, 2**16)


def matrix(seed: int, rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_an_unmoved_client_shows_nothing() -> None:
    logits, hidden = matrix(0, 6, 3), matrix(1, 6, 4)
    response = describe_response(logits, logits)
    assert response.pop("concentration") >= 1 / 3
    assert all(abs(value) < 1e-6 for value in response.values())
    activations = describe_activations(hidden, hidden)
    assert all(abs(value) < 1e-5 for value in activations.values())


def test_response_of_a_hand_computed_case() -> None:
    reference = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    client = torch.tensor([[1.0, -1.0], [3.0, -3.0]])
    response = describe_response(client, reference)
    spread = reference.std().item()  # 1.1547: two +1 and two -1, sample standard deviation
    # Centred shifts are (0, 0) and (+4, -4); class means +2 and -2, over the spread.
    assert response["shift_high"] == pytest.approx(2 / spread, rel=1e-4)
    assert response["shift_low"] == pytest.approx(-2 / spread, rel=1e-4)
    assert response["shift_spread"] == pytest.approx(2 / spread, rel=1e-4)
    assert response["flips"] == 0.5
    assert response["concentration"] == 1.0
    sigmoid = [1 / (1 + math.exp(-2 * x)) for x in (1.0, 3.0, -1.0)]
    rise = (sigmoid[0] + sigmoid[1]) / 2 - (sigmoid[0] + sigmoid[2]) / 2
    assert response["attraction"] == pytest.approx(rise, abs=1e-6)


def test_activations_of_a_hand_computed_case() -> None:
    reference = torch.tensor([[3.0, 4.0], [0.0, 5.0]])
    described = describe_activations(2 * reference, reference)
    assert described["turn"] == pytest.approx(0.0, abs=1e-6)
    assert described["growth"] == pytest.approx(math.log(2), abs=1e-5)
    assert described["spread_ratio"] == pytest.approx(math.log(4), abs=1e-5)
    assert described["mean_shift"] == pytest.approx(math.hypot(1.5, 4.5) / 5, abs=1e-5)
    shifted = describe_activations(reference + torch.tensor([1.0, 0.0]), reference)
    assert shifted["rank_one"] == pytest.approx(1.0, abs=1e-5)  # the same shift for every sample


@given(seeds)
def test_the_order_of_classes_and_of_neurons_does_not_matter(seed: int) -> None:
    classes = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    client, reference = matrix(seed, 7, 5), matrix(seed + 1, 7, 5)
    assert describe_response(client[:, classes], reference[:, classes]) == pytest.approx(
        describe_response(client, reference), abs=1e-4
    )
    assert describe_activations(client[:, classes], reference[:, classes]) == pytest.approx(
        describe_activations(client, reference), abs=1e-4
    )


@given(seeds, st.floats(0.01, 100.0))
def test_descriptors_have_no_dimension(seed: int, unit: float) -> None:
    client, reference = matrix(seed, 7, 5), matrix(seed + 1, 7, 5)
    one = describe_activations(client, reference)
    other = describe_activations(unit * client, unit * reference)
    assert other == pytest.approx(one, rel=1e-2, abs=1e-2)


def test_geometry_of_a_hand_computed_case() -> None:
    update = {"body": torch.tensor([0.0, 0.0]), "head.weight": torch.tensor([[3.0], [0.0]]),
              "head.bias": torch.tensor([0.0, 4.0])}  # fmt: skip
    others = {key: 2 * value for key, value in update.items()}
    reference = {key: torch.full_like(value, 5.0) for key, value in update.items()}
    described = describe_geometry(update, reference, others, "head")
    assert described["log_norm"] == pytest.approx(math.log(5))
    assert described["agreement"] == pytest.approx(1.0)
    assert described["head_share"] == pytest.approx(1.0)
    assert described["row_peak"] == pytest.approx(16 / 25)
    assert described["sparsity"] == pytest.approx(7 / (math.sqrt(6) * 5))
    assert described["reach"] == pytest.approx(math.log(5 / (5 * math.sqrt(6))))
    # 9 of 25 in the middle one of three parameters, 16 of 25 in the last.
    assert described["depth"] == pytest.approx((9 * 0.5 + 16 * 1.0) / 25)


def test_a_rare_word_is_no_surplus_and_a_word_taught_too_far_is() -> None:
    motions = torch.zeros(6, 12)
    motions[:, :5] = 1.0  # ordinary vocabulary moves for everybody
    motions[2, 5] = 1.2  # a word that only an honest client has
    motions[:2, 4] = 2.5  # a word that two attackers teach
    motions[:, 3] = 2.0  # a frequent word moves far for all
    surplus = surplus_motion(motions)
    # The word of the attackers: 2.5 minus the median of 2.5, 2.5, 1, 1, 1, 1.
    assert surplus[0].tolist() == pytest.approx([0, 0, 0, 0, 1.5, *[0] * 7])
    assert surplus[2, 5] == pytest.approx(0.2), "nobody else moved it: the typical motion is 1"
    assert surplus[5].tolist() == [0.0] * 12
    assert shared_tokens(surplus)[0] == 4
    found = describe_surplus(surplus)
    assert found["surplus_top"][0] == pytest.approx(1.5 / JOINT)
    assert found["shared_top"][0] == pytest.approx(1.5 / NUM_GUIDED)
    assert found["surplus_peer"][:2].tolist() == pytest.approx([1.0, 1.0])
    assert found["surplus_peer"][2:].abs().max() < 1e-6


def test_suspected_are_what_a_client_moved_too_far_and_what_several_did() -> None:
    surplus = torch.rand(5, 400, generator=torch.Generator().manual_seed(4))
    surplus[:, [4, 9]], surplus[1, [4, 9]] = 0.0, 5.0  # only one client's
    surplus[2:4, 300] = 3.0  # two clients'
    suspected = [set(tokens.tolist()) for tokens in suspected_tokens(surplus)]
    assert {4, 9} <= suspected[1]
    assert not any({4, 9} & suspected[i] for i in (0, 2, 3, 4))
    assert all(300 in tokens for tokens in suspected)
    assert all(OWN <= len(tokens) <= OWN + SHARED for tokens in suspected)
    few = suspected_tokens(torch.zeros(1, 3))
    assert few[0].tolist() == [0, 1, 2]


def test_phrases_are_what_clients_moved_too_far_whatever_their_order() -> None:
    surplus = torch.rand(5, 40, generator=torch.Generator().manual_seed(3))
    surplus[1, [4, 9, 16, 25]] = 5.0
    phrases = choose_phrases(surplus)
    assert (4, 9, 16, 25) in phrases
    assert len(phrases) == 6, "one of all together, and one of each"
    assert set(choose_phrases(surplus.flip(0))) == set(phrases)
    assert len(choose_phrases(surplus, count=3)) == 3


def test_a_head_that_is_no_parameter_of_its_own_has_no_energy() -> None:
    assert head_energy({"embedding.weight": torch.ones(2, 2)}, "head").sum() == 0


def test_tokens_taught_by_one_client_stand_out() -> None:
    updates = [torch.zeros(10, 3) for _ in range(5)]
    for update in updates:
        update[:4, 0] = 1.0  # ordinary vocabulary moves for everybody
    updates[0][7, 1] = 3.0  # the trigger word moves for one
    excess = excess_motion(torch.stack([row_motion(update) for update in updates]))
    assert excess[0].argmax() == 7
    directions = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
    pull = excess_motion(torch.stack([row_pull(update, directions) for update in updates]))
    assert describe_tokens(excess[0], pull[0])["token_peak"] == pytest.approx(3.0)
    assert describe_tokens(excess[1], pull[1])["token_peak"] == pytest.approx(0.0)
    # One row of ten moves by 3 along a direction: its pull is 3 over a root mean square of 3/√10.
    assert describe_tokens(excess[0], pull[0])["pull_peak"] == pytest.approx(math.sqrt(10))
    assert describe_tokens(excess[1], pull[1])["pull_peak"] == pytest.approx(0.0)


def test_inserted_tokens_follow_the_first_position() -> None:
    ids = torch.tensor([[9, 1, 2, 3, 4]])
    assert insert_tokens(ids, torch.tensor([7, 8])).tolist() == [[9, 7, 8, 1, 2]]
    with pytest.raises(ModelError, match="at least 8 tokens, got 5"):
        insert_tokens(ids, torch.arange(6))
