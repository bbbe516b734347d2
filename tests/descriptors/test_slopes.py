"""Slope descriptors: a hand-computed case, and what must not matter."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fl_shield.descriptors.slopes import describe_slopes, keep_slopes, unit_of

seeds = st.integers(0, 2**16)


def cube(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


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
