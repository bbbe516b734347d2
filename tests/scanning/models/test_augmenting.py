"""Moved copies: the first are the images themselves, the others are near them."""

from __future__ import annotations

import pytest
import torch

from fl_shield.data.task import Split
from fl_shield.errors import ConfigurationError
from fl_shield.scanning.models.augmenting import augmented


def test_originals_come_first_and_labels_go_along() -> None:
    images = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    labels = torch.arange(5)
    found = augmented(Split(images, labels), 3)
    assert torch.equal(found.inputs[:5], images.float() / 255)
    assert found.labels.tolist() == [0, 1, 2, 3, 4] * 3
    assert found.inputs.min() >= 0
    assert found.inputs.max() <= 1
    again = augmented(Split(images, labels), 3)
    assert torch.equal(found.inputs, again.inputs)
    assert not torch.equal(found.inputs, augmented(Split(images, labels), 3, seed=1).inputs)


def test_a_dot_moves_by_a_few_pixels_and_a_flat_image_stays() -> None:
    dot = torch.zeros(1, 1, 25, 25)
    dot[..., 11:14, 11:14] = 1.0
    moved = augmented(Split(dot, torch.zeros(1, dtype=torch.int64)), 20).inputs[1:, 0]
    places = torch.arange(25.0)
    for axis in (1, 2):
        centre = (moved.sum(dim=axis) * places).sum(dim=1) / moved.sum(dim=(1, 2))
        assert 0.5 < (centre - 12).abs().max() < 0.08 * 25 * 1.2 + 0.5
    flat = torch.full((1, 1, 9, 9), 0.5)
    copies = augmented(Split(flat, torch.zeros(1, dtype=torch.int64)), 4).inputs
    assert torch.allclose(copies, flat.expand(4, -1, -1, -1))


def test_what_it_refuses() -> None:
    split = Split(torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ConfigurationError, match="images in four dimensions"):
        augmented(split, 2)
    with pytest.raises(ConfigurationError, match="copies"):
        augmented(split, 0)
