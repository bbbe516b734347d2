"""Figures as people read them."""

from __future__ import annotations


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as text.

    >>> percent(0.98), percent(0.0042), percent(None)
    ('98.0 %', '0.4 %', '–')
    """
    return "–" if share is None else f"{100 * share:.{digits}f} %"
