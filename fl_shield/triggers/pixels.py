"""Lengths in images, given in pixels or as a share of a side."""

from __future__ import annotations


def pixels(length: int | float, side: int) -> int:
    """Return a length in pixels: an integer as it is, a float as that share of `side`.

    A share never comes to less than one pixel.

    >>> pixels(3, 28), pixels(0.25, 28), pixels(0.01, 28)
    (3, 7, 1)
    """
    return max(1, round(length * side)) if isinstance(length, float) else int(length)


def is_length(length: int | float, smallest: int = 1) -> bool:
    """Return whether `length` is a share between 0 and 1, or at least `smallest` pixels."""
    return 0 < length < 1 if isinstance(length, float) else length >= smallest
