"""The split-conformal quantile: a threshold that further clean scores rarely exceed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MARGIN = 1e-6
"""How far above a clean score the limit is put, relative to it; more than rounding."""

SLACK = 1e-9
"""(n + 1) · (1 − 0.05) must not become 20.000000000000004 and ask for one more score."""


def conformal_quantile(ordered: NDArray[np.float64], false_alarms: float) -> float | None:
    """Return the ⌈(n + 1) · (1 − false alarms)⌉-th smallest of n scores, None if n is too small.

    A further score exceeds it with at most that probability where all are exchangeable (Vovk et
    al., *Algorithmic Learning in a Random World*, 2005, section 2.2).

    Args:
        ordered: `(n,)` finite scores, smallest first.
        false_alarms: Between 0 and 1.
    """
    rank = math.ceil((len(ordered) + 1) * (1.0 - false_alarms) - SLACK)
    return None if rank > len(ordered) else float(ordered[max(rank, 1) - 1])


def just_above(quantile: float) -> float:
    """Return a limit for rules that flag scores that reach it: a little above the quantile."""
    return quantile + MARGIN * (1.0 + abs(quantile))


def fewest_scores(false_alarms: float) -> int:
    """Return how many scores `conformal_quantile` needs for this share of false alarms."""
    return math.ceil(1.0 / false_alarms - SLACK) - 1
