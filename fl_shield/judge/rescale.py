"""Rescaling updates: partial trust and norm clipping, both `global + factor · (client − global)`.

Scaling an update works with every aggregation rule, unlike editing a client's weight, which
medians and Krum never look at. Parameters and floating buffers (running statistics) are clipped
each to their own norm, as they live on different scales; integer counters are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from fl_shield.cohort import State


@dataclass(frozen=True)
class ByPart:
    """A value for the parameters of a model and one for its floating buffers: norms, or factors."""

    parameters: float
    buffers: float

    def clip_factors(self, limit: ByPart) -> ByPart:
        """Return the factors, at most 1, that bring this update within `limit`."""
        return ByPart(
            _clip_factor(self.parameters, limit.parameters),
            _clip_factor(self.buffers, limit.buffers),
        )


def update_norms(
    state: State, reference: State, parameters: Collection[str] | None = None
) -> ByPart:
    """Return the norms of `state − reference`.

    Args:
        state: A client's weights.
        reference: The global weights.
        parameters: Names of the trainable parameters; None counts every floating array as one.
    """
    squares = {True: 0.0, False: 0.0}
    for name in reference:
        if _is_floating(state[name]):
            difference = state[name].astype(np.float64) - reference[name].astype(np.float64)
            is_parameter = parameters is None or name in parameters
            squares[is_parameter] += float(np.vdot(difference, difference))
    return ByPart(math.sqrt(squares[True]), math.sqrt(squares[False]))


def median_norms(norms: Iterable[ByPart]) -> ByPart:
    """Return the medians, each by itself; infinite for no norms: nothing is clipped."""
    every: Sequence[ByPart] = list(norms)
    if not every:
        return ByPart(math.inf, math.inf)
    return ByPart(median(n.parameters for n in every), median(n.buffers for n in every))


def rescale(
    state: State,
    reference: State,
    factors: ByPart,
    parameters: Collection[str] | None = None,
) -> dict[str, NDArray[np.generic]]:
    """Return `reference + factor · (state − reference)` in the dtypes of `state`.

    Args:
        state: A client's weights.
        reference: The global weights.
        factors: Factor of the parameters, and of the floating buffers.
        parameters: Names of the trainable parameters; None counts every floating array as one.
    """
    scaled: dict[str, NDArray[np.generic]] = {}
    for name, base in reference.items():
        factor = factors.parameters if parameters is None or name in parameters else factors.buffers
        array = state[name]
        if factor == 1.0 or not _is_floating(array):
            scaled[name] = array
            continue
        start = base.astype(np.float64)
        moved = start + factor * (array.astype(np.float64) - start)
        scaled[name] = np.asarray(moved, dtype=array.dtype)
    return scaled


def _clip_factor(norm: float, limit: float) -> float:
    # A limit of zero means that most of the cohort did not train: there is no scale to clip to.
    return 1.0 if limit <= 0.0 or norm <= limit else limit / norm


def _is_floating(array: NDArray[np.generic]) -> bool:
    return array.dtype.kind == "f"
