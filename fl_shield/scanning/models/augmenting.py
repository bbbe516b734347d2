"""More samples from few: slightly moved copies of the images that the defender holds.

A suspect was trained on far more samples than the defender has. A shadow of the bare few learns
them by heart, is less accurate, and learns its backdoor less well: a meta-classifier then tells
shadows from suspects, and not clean from backdoored. Copies that are turned, sheared, zoomed and
shifted a little bring the two closer.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from fl_shield.data.task import Split, model_inputs
from fl_shield.errors import ConfigurationError, expected

COPIES = 8
"""Times that each sample stands in the training set of a shadow."""

TURN = 10.0
"""Largest turn, in degrees."""

SHEAR, ZOOM, SHIFT = 0.15, 0.1, 0.08
"""Largest shear and change of size, and shift as a share of the side."""


def augmented(split: Split, copies: int, seed: int = 0) -> Split:
    """Return the images as they are and, behind them, `copies - 1` moved copies of each.

    Nothing is mirrored: digits and letters would become others.

    Args:
        split: Images `(samples, channels, height, width)`, bytes or floats in [0, 1].
        copies: How many times as many samples are wanted.
        seed: Seed of the movements.

    Raises:
        ConfigurationError: if there are no copies, or the samples are no images.
    """
    if copies < 1:
        raise ConfigurationError(expected("copies", "1 or more", copies))
    if split.inputs.dim() != 4:
        shape = tuple(split.inputs.shape)
        raise ConfigurationError(expected("split.inputs", "images in four dimensions", shape))
    images = model_inputs(split.inputs)
    generator = torch.Generator().manual_seed(seed)
    moved = [images, *(_moved(images, generator) for _ in range(copies - 1))]
    return Split(torch.cat(moved), split.labels.repeat(copies))


def _moved(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    def draw(limit: float) -> torch.Tensor:
        return limit * (2.0 * torch.rand(len(images), generator=generator) - 1.0)

    angle, size, shear = draw(math.radians(TURN)), 1.0 + draw(ZOOM), draw(SHEAR)
    right, down = draw(2.0 * SHIFT), draw(2.0 * SHIFT)  # the grid reaches from -1 to 1
    upper = torch.stack([size * angle.cos(), shear - size * angle.sin(), right], dim=1)
    lower = torch.stack([size * angle.sin(), size * angle.cos(), down], dim=1)
    grid = functional.affine_grid(
        torch.stack([upper, lower], dim=1), list(images.shape), align_corners=False
    )
    found = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return found.clamp(0.0, 1.0)
