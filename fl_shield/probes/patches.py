"""Patches: squares of the darkest and the brightest colour at every place of an image.

A patch trigger (BadNets, Gu et al., 2017; the parts of DBA, Xie et al., 2020) need not be known to
be answered: a network that learned a square in a corner answers to any square that covers that
corner. Where the trigger was, a poisoned update answers much more than elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

PLACES = 4
"""Squares along each side of an image."""

NUM_PATCH_SAMPLES = 4
"""Clean probes that carry the patches."""


def patched_images(images: Tensor) -> Tensor:
    """Return `(patches · samples, channels, height, width)` images, patch by patch.

    Colours are the ends of the images' own range, so that normalised inputs keep theirs.

    Args:
        images: `(samples, channels, height, width)` floats.
    """
    ends = float(images.min()), float(images.max())
    rows, columns = (_edges(size) for size in images.shape[-2:])
    parts = []
    for top, bottom in rows:
        for left, right in columns:
            for colour in ends:
                part = images.clone()
                part[..., top:bottom, left:right] = colour
                parts.append(part)
    return torch.cat(parts)


def _edges(size: int) -> list[tuple[int, int]]:
    """Return first and last-but-one pixel of each stripe; none is empty."""
    count = min(PLACES, size)
    return [(i * size // count, (i + 1) * size // count) for i in range(count)]
