"""What every suspicion statistic offers, and how its values are kept finite."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fl_shield.baselines.observed import Floats, Observed

LIMIT = 1e12
"""Scores are limited to this size; only an infinite one would be larger."""


@runtime_checkable
class Statistic(Protocol):
    """A number for each client of a cohort; higher is more suspicious.

    Attributes:
        name: Name in tables.
    """

    name: str

    def score(self, observed: Observed) -> Floats:
        """Return `(clients,)` scores, finite, for any number of clients."""
        ...


def finite(scores: NDArray[np.floating]) -> Floats:
    """Return scores without NaN (0: no opinion) and infinities (±`LIMIT`)."""
    values = np.nan_to_num(
        np.asarray(scores, dtype=np.float64), nan=0.0, posinf=LIMIT, neginf=-LIMIT
    )
    return np.asarray(np.clip(values, -LIMIT, LIMIT), dtype=np.float64)
