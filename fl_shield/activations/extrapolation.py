"""Interpolation and extrapolation: looking nearer and further along an update than the client went.

Stealthy attackers hide by being small. Every update is brought to the cohort's median norm and
followed for `scale` times that far, `G + s · m · d / ‖d‖`, which undoes hiding by clipping or by
boosting and makes what the direction does visible. A part of the way shows most: a poisoned model
may send everything to the target, triggered or not, where a quarter of its update, which is more
than averaging leaves of it, sends triggered inputs there and no others.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

RAW = "raw"
"""The scale at which the client's own weights are used, buffers included."""

SCALES: tuple[float, ...] = (0.25, 1.0, 4.0, 10.0)
"""Scales at which an update is followed, in units of the cohort's median update norm."""

EPSILON = 1e-12


def extrapolate(
    reference: Mapping[str, Tensor],
    update: Mapping[str, Tensor],
    norm: float,
    length: float,
    out: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return `reference + length · update / norm`, parameter by parameter.

    Args:
        reference: Global parameters by name.
        update: Client minus global parameters by name.
        norm: Euclidean norm of the whole update; an update of norm zero leads nowhere.
        length: How far to go, in the same unit as `norm`.
        out: Tensors to write the result into, by name; None makes new ones.
    """
    factor = length / norm if norm > EPSILON else 0.0
    if out is None:
        return {key: reference[key] + factor * update[key] for key in update}
    for key, delta in update.items():
        if out[key].is_floating_point():
            torch.mul(delta, factor, out=out[key]).add_(reference[key])
        else:
            out[key].copy_(reference[key] + factor * delta)
    return dict(out)
