"""Extrapolation follows an update's direction, whatever the update's own length."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from fl_shield.activations.extrapolation import extrapolate


@given(scale=st.floats(1e-6, 1e6), length=st.floats(0.0, 100.0))
def test_only_the_direction_of_an_update_matters(scale: float, length: float) -> None:
    reference = {"w": torch.tensor([1.0, 2.0], dtype=torch.float64)}
    update = {"w": scale * torch.tensor([3.0, 4.0], dtype=torch.float64)}
    moved = extrapolate(reference, update, norm=5.0 * scale, length=length)["w"]
    expected = torch.tensor([1.0 + 0.6 * length, 2.0 + 0.8 * length], dtype=torch.float64)
    torch.testing.assert_close(moved, expected)


def test_an_update_of_norm_zero_leads_nowhere() -> None:
    reference = {"w": torch.tensor([1.0])}
    assert torch.equal(extrapolate(reference, {"w": torch.zeros(1)}, 0.0, 4.0)["w"], reference["w"])
