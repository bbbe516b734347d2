"""Triggers live in [0, 1]; images that were normalised do not."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

SMALLEST_SPAN = 1e-6


def in_unit_range(
    images: Tensor, change: Callable[[Tensor], Tensor], of: Tensor | None = None
) -> Tensor:
    """Return what `change` makes of images moved to [0, 1], moved back to their own range.

    Args:
        images: Floats of any range and shape.
        change: Takes and returns images in [0, 1].
        of: The images that the range is taken from, None for `images`.
    """
    whole = images if of is None else of
    low, high = whole.min(), whole.max()
    span = (high - low).clamp_min(SMALLEST_SPAN)
    return change((images - low) / span) * span + low
