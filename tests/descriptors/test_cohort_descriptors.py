"""Descriptors that compare the clients of a round, against plain numpy and exact distances."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fl_shield.descriptors.candidates import (
    answers,
    describe_candidates,
    describe_inverted,
    describe_sought,
)
from fl_shield.descriptors.excess import describe_excess, logit_shift, nearest_peer
from fl_shield.descriptors.sketch import Sketcher, describe_relations

seeds = st.integers(0, 2**16)


def cube(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_excess_of_a_hand_computed_case() -> None:
    shifts = torch.zeros(3, 2, 2)
    shifts[:] = torch.tensor([[1.0, -1.0], [2.0, -2.0]])  # what everybody does is no excess
    shifts[2] += torch.tensor([3.0, -1.0])
    described = describe_excess(shifts)
    assert described["excess_high"].tolist() == pytest.approx([0.0, 0.0, 3.0])
    assert described["excess_low"].tolist() == pytest.approx([0.0, 0.0, -1.0])
    size = [math.log(0.01), math.log(0.01), math.log(math.sqrt((9 + 1) / 2) + 0.01)]
    assert described["excess_size"].tolist() == pytest.approx(size, abs=1e-5)
    assert described["peer"].tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)


@given(seeds)
def test_excess_is_what_numpy_computes(seed: int) -> None:
    shifts = cube(seed, 5, 4, 3)  # five clients: torch and numpy agree on the median of odd counts
    values = shifts.numpy().astype(np.float64)
    excess = values - np.median(values, axis=0)
    described = describe_excess(shifts)
    by_class = excess.mean(axis=1)
    np.testing.assert_allclose(described["excess_high"], by_class.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(described["excess_low"], by_class.min(axis=1), atol=1e-5)
    size = np.log(np.sqrt((excess**2).mean(axis=(1, 2))) + 0.01)
    np.testing.assert_allclose(described["excess_size"], size, atol=1e-4)
    flat = excess.reshape(5, -1)
    cosines = np.array(
        [
            max(
                one @ two / np.linalg.norm(one) / np.linalg.norm(two)
                for j, two in enumerate(flat)
                if i != j
            )
            for i, one in enumerate(flat)
        ]
    )
    np.testing.assert_allclose(described["peer"], cosines, atol=1e-4)


def test_colluding_clients_are_each_others_peers() -> None:
    shifts = 0.1 * cube(0, 7, 5, 3)
    plot = cube(1, 5, 3)
    shifts[2] += plot
    shifts[5] += 2 * plot
    peer = describe_excess(shifts)["peer"]
    assert set(peer.topk(2).indices.tolist()) == {2, 5}
    assert float(peer[2]) > 0.9
    assert nearest_peer(shifts[:1].flatten(1)).tolist() == [0.0]


def test_each_others_nearest_tie_in_any_order() -> None:
    """Ranks are read of them: one bit more for one of the two would be a whole rank."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(6, 400, generator=generator, dtype=torch.float64)
    vectors[4] = vectors[1] + 0.1 * vectors[4]
    for _ in range(20):
        order = torch.randperm(6, generator=generator)
        one, other = (int((order == client).nonzero()) for client in (1, 4))
        for found in (nearest_peer(vectors[order]), describe_relations(vectors[order])["nearest"]):
            assert found[one] == found[other] == found.max()


def test_a_shift_counts_in_spreads_of_the_reference_and_no_constant_counts() -> None:
    reference = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    client = reference + torch.tensor([[5.0], [-7.0]])  # the same for all classes of a sample
    assert logit_shift(client, reference).abs().max() < 1e-5
    twice = logit_shift(2 * reference, reference)
    np.testing.assert_allclose(twice, reference / reference.std(), rtol=1e-4)


@given(seeds)
def test_the_order_of_clients_and_of_classes_does_not_matter(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clients = torch.randperm(6, generator=generator)
    classes = torch.randperm(4, generator=generator)
    values = cube(seed, 6, 5, 4)
    pairs = [
        (describe_excess(values), describe_excess(values[clients][:, :, classes])),
        (describe_candidates(values), describe_candidates(values[clients][:, :, classes])),
    ]
    square = cube(seed, 6, 4, 4)
    relabelled = square[clients][:, classes][:, :, classes]
    pairs.append((describe_inverted(square), describe_inverted(relabelled)))
    pairs.append(
        (describe_relations(square.flatten(1)), describe_relations(square[clients].flatten(1)))
    )
    for one, other in pairs:
        for name, column in one.items():
            np.testing.assert_allclose(other[name], column[clients], atol=1e-4, err_msg=name)


@given(seeds, st.integers(1, 4), st.sampled_from([0.0, 1e-12, 1.0, 1e6]))
def test_every_cohort_is_described_finitely(seed: int, clients: int, size: float) -> None:
    values = size * cube(seed, clients, 3, 3)
    described = describe_excess(values) | describe_inverted(values)
    described |= describe_relations(values.flatten(1).double())
    for name, column in described.items():
        assert column.shape == (clients,), name
        assert torch.isfinite(column).all(), name


def test_answers_are_double_differences() -> None:
    without = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    opened = torch.tensor([[-2.0, 2.0], [-1.0, 1.0]])  # the second class opens for both samples
    found = answers(torch.cat([without + 9.0, opened]), without, 2, torch.tensor(2.0))
    np.testing.assert_allclose(found, [[0.0, 0.0], [-1.0, 1.0]], atol=1e-6)


def test_candidates_of_a_hand_computed_case() -> None:
    given_answers = torch.zeros(3, 4, 3)
    given_answers[1, :, 2] = torch.tensor([4.0, 2.0, 0.0, 1.0])
    given_answers[1, 3, 0] = -5.0
    described = describe_candidates(given_answers)
    assert described["answer_peak"].tolist() == [0.0, 4.0, 0.0]
    assert described["answer_top"][1] == pytest.approx((4 + 2 + 1) / 3)
    assert described["answer_low"].tolist() == [0.0, -5.0, 0.0]
    assert described["answer_focus"][1] == pytest.approx(1.0)
    own = torch.zeros(3, 3, 3)
    own[2] = torch.diag(torch.tensor([6.0, 0.0, 0.0]))
    assert describe_inverted(own)["answer_own"].tolist() == pytest.approx([0.0, 0.0, 4.0])


@given(seeds)
def test_sketches_keep_the_angles_of_updates(seed: int) -> None:
    """One over the root of 1024 buckets is 0.03; five of these are allowed."""
    body, head = cube(seed, 6, 4000), cube(seed + 1, 6, 50, 4)
    body[1] = body[0] + 0.3 * body[1]
    sketcher = Sketcher(seed=3)
    updates = [{"body": b, "head": h} for b, h in zip(body, head, strict=True)]
    sketched = torch.stack([sketcher.sketch(update) for update in updates])
    whole = torch.cat([body, head.flatten(1)], dim=1).double()
    cosine = torch.nn.functional.cosine_similarity
    for i in range(6):
        for j in range(i):
            exact = float(cosine(whole[i], whole[j], dim=0))
            assert float(cosine(sketched[i], sketched[j], dim=0)) == pytest.approx(exact, abs=0.16)
    exact_columns = describe_relations(whole)
    for name, column in describe_relations(sketched).items():
        np.testing.assert_allclose(column, exact_columns[name], atol=0.2, err_msg=name)
    assert set(exact_columns["nearest"].topk(2).indices.tolist()) == {0, 1}


def test_sketches_are_linear_and_follow_their_seed() -> None:
    one, two = {"w": cube(1, 300)}, {"w": cube(2, 300)}
    sketcher = Sketcher(seed=1)
    both = sketcher.sketch({"w": one["w"] + 2 * two["w"]})
    np.testing.assert_allclose(both, sketcher.sketch(one) + 2 * sketcher.sketch(two), atol=1e-5)
    assert torch.equal(Sketcher(seed=1).sketch(one), sketcher.sketch(one))
    assert not torch.equal(Sketcher(seed=2).sketch(one), sketcher.sketch(one))


def test_lift_is_one_candidate_beyond_the_others() -> None:
    answers = torch.zeros(5, 3, 2)
    answers[0] = torch.tensor([[1.0, 0.0], [1.0, 0.0], [4.0, 0.0]])  # one candidate stands out
    answers[1, :, 0] = 3.0  # answers to whatever is put there
    found = describe_sought(answers)
    assert found["answer_peak"].tolist() == [4.0, 3.0, 0.0, 0.0, 0.0]
    assert found["answer_lift"].tolist() == [3.0, 0.0, 0.0, 0.0, 0.0]


def test_the_clearest_and_the_most_shared_candidate_are_asked_of_all() -> None:
    answers = torch.zeros(6, 3, 2)
    answers[0, 0, 1], answers[1, 0, 1] = 9.0, 1.0  # the trigger, and one who learned a bit of it
    answers[0, 1, 0], answers[1, 1, 0] = 3.0, 2.0  # an easier part of it
    answers[2, 2, 0] = 5.0  # an honest client that stands alone with a word of its own
    found = describe_sought(answers)
    assert found["answer_clear"].tolist() == [9.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert found["answer_shared"].tolist() == [3.0, 2.0, 0.0, 0.0, 0.0, 0.0]
    assert found["answer_peak"].tolist() == [9.0, 2.0, 5.0, 0.0, 0.0, 0.0]
    alone = describe_sought(torch.ones(1, 3, 2))
    assert alone["answer_clear"].tolist() == alone["answer_shared"].tolist() == [0.0]
