"""Slope descriptors: closed forms of linear models, and what must not matter."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fl_shield.activations.slopes import MAX_CLASSES, input_slopes
from fl_shield.descriptors.slopes import BUCKETS, describe_slopes, keep_slopes, unit_of

seeds = st.integers(0, 2**16)


def cube(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_slopes_of_a_linear_model_are_its_centred_weights() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).eval()
    images = torch.rand(5, 3, 2, 2)
    slopes = input_slopes(model, model.state_dict(), images, None)
    weight = model.state_dict()["1.weight"]
    expected = (weight - weight.mean(dim=0)).unsqueeze(1).expand(4, 5, 12)
    np.testing.assert_allclose(slopes, expected, atol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embedding(ids).mean(dim=1))
        return logits


def test_slopes_of_texts_are_by_their_embedded_tokens() -> None:
    model = Bag().eval()
    slopes = input_slopes(model, model.state_dict(), torch.randint(0, 30, (6, 8)), "embedding")
    weight = model.state_dict()["head.weight"]
    expected = (weight - weight.mean(dim=0)).unsqueeze(1).expand(3, 6, 5) / 8
    np.testing.assert_allclose(slopes, expected, atol=1e-6)


def test_of_many_classes_the_first_are_taken() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 30)).eval()
    slopes = input_slopes(model, model.state_dict(), torch.rand(2, 1, 2, 2), None)
    assert slopes.shape == (MAX_CLASSES, 2, 4)


def test_a_hand_computed_case() -> None:
    reference = torch.zeros(1, 2, 4)
    same, varied = reference.clone(), reference.clone()
    same[0] = torch.tensor([2.0, 0.0, 0.0, 0.0])  # both samples alike, one component
    varied[0, 0], varied[0, 1] = torch.ones(4), -torch.ones(4)  # nothing in common
    kept = [keep_slopes(client, reference) for client in (same, varied, reference)]
    described = describe_slopes(kept, unit=4.0)
    assert described["slope_focus"].tolist() == pytest.approx([1.0, 0.0, 0.0])
    # The largest of four components over their root mean square, 2 / 1.
    assert float(described["slope_peak"][0]) == pytest.approx(math.log(2.0), abs=1e-4)
    expected = [math.log(2 / 4 + 0.01), math.log(0.01), math.log(0.01)]
    assert described["slope_size"].tolist() == pytest.approx(expected, abs=1e-4)


def test_colluding_clients_are_turned_alike() -> None:
    reference = cube(9, 3, 4, 20)
    trigger = cube(1, 20)
    clients = [reference + 0.1 * cube(10 + i, 3, 4, 20) for i in range(7)]
    for index in (2, 5):
        clients[index][1] += trigger
    kept = [keep_slopes(client, reference) for client in clients]
    described = describe_slopes(kept, unit_of(reference))
    for name in ("slope_twin", "slope_peer", "slope_size", "slope_focus"):
        assert set(described[name].topk(2).indices.tolist()) == {2, 5}, name


@given(seeds)
def test_neither_the_order_of_clients_nor_that_of_classes_matters(seed: int) -> None:
    clients, reference = cube(seed, 5, 4, 3, 6), cube(seed + 1, 4, 3, 6)
    order, classes = [3, 1, 4, 0, 2], [2, 0, 3, 1]
    described = describe_slopes([keep_slopes(c, reference) for c in clients], 1.0)
    moved = describe_slopes(
        [keep_slopes(clients[i][classes], reference[classes]) for i in order], 1.0
    )
    for name, values in described.items():
        np.testing.assert_allclose(moved[name], values[order], atol=1e-9, err_msg=name)


@given(seeds, st.sampled_from([1e-30, 1.0, 1e6]))
def test_every_finite_input_gives_finite_values(seed: int, size: float) -> None:
    clients, reference = size * cube(seed, 3, 2, 3, 5), size * cube(seed + 1, 2, 3, 5)
    clients[0], clients[1] = reference, torch.nan
    described = describe_slopes([keep_slopes(c, reference) for c in clients], unit_of(reference))
    assert all(bool(torch.isfinite(values).all()) for values in described.values())


def test_long_slopes_are_sketched_and_keep_their_angles() -> None:
    reference = torch.zeros(1, 1, 20_000)
    one, two = cube(1, 1, 1, 20_000), cube(2, 1, 1, 20_000)
    mixed = 0.8 * one + 0.6 * two
    kept = [keep_slopes(c, reference) for c in (one, mixed)]
    a, b = (slopes.turned[0] for slopes in kept)
    assert len(a) == BUCKETS
    cosine = float(torch.nn.functional.cosine_similarity(a, b, dim=0))
    assert cosine == pytest.approx(0.8, abs=0.1)
