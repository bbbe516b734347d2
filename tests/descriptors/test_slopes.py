"""Slope descriptors: a hand-computed case, and what must not matter."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fl_shield.descriptors.sketch import BUCKETS, Sketcher
from fl_shield.descriptors.slopes import Slopes, describe_slopes, keep_slopes, unit_of

seeds = st.integers(0, 2**16)


def cube(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kept_of(client: Tensor, reference: Tensor) -> Slopes:
    return keep_slopes(client, reference, Sketcher())


def test_a_hand_computed_case() -> None:
    reference = torch.zeros(1, 2, 4)
    same, varied = reference.clone(), reference.clone()
    same[0] = torch.tensor([2.0, 0.0, 0.0, 0.0])  # both samples alike, one component
    varied[0, 0], varied[0, 1] = torch.ones(4), -torch.ones(4)  # nothing in common
    kept = [kept_of(client, reference) for client in (same, varied, reference)]
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
    kept = [kept_of(client, reference) for client in clients]
    described = describe_slopes(kept, unit_of(reference))
    for name in ("slope_twin", "slope_peer", "slope_size", "slope_focus"):
        assert set(described[name].topk(2).indices.tolist()) == {2, 5}, name


@given(seeds)
def test_neither_the_order_of_clients_nor_that_of_classes_matters(seed: int) -> None:
    clients, reference = cube(seed, 5, 4, 3, 6), cube(seed + 1, 4, 3, 6)
    order, classes = [3, 1, 4, 0, 2], [2, 0, 3, 1]
    described = describe_slopes([kept_of(c, reference) for c in clients], 1.0)
    moved = describe_slopes([kept_of(clients[i][classes], reference[classes]) for i in order], 1.0)
    for name, values in described.items():
        np.testing.assert_allclose(moved[name], values[order], atol=1e-9, err_msg=name)


@given(seeds, st.sampled_from([1e-30, 1.0, 1e6]))
def test_every_finite_input_gives_finite_values(seed: int, size: float) -> None:
    clients, reference = size * cube(seed, 3, 2, 3, 5), size * cube(seed + 1, 2, 3, 5)
    clients[0], clients[1] = reference, torch.nan
    described = describe_slopes([kept_of(c, reference) for c in clients], unit_of(reference))
    assert all(bool(torch.isfinite(values).all()) for values in described.values())


def test_long_slopes_are_sketched_and_keep_their_angles() -> None:
    reference = torch.zeros(1, 1, 20_000)
    one, two = cube(1, 1, 1, 20_000), cube(2, 1, 1, 20_000)
    mixed = 0.8 * one + 0.6 * two
    kept = [kept_of(c, reference) for c in (one, mixed)]
    a, b = (slopes.turned[0] for slopes in kept)
    assert len(a) == BUCKETS
    cosine = float(torch.nn.functional.cosine_similarity(a, b, dim=0))
    assert cosine == pytest.approx(0.8, abs=0.1)
