"""AlignIns (Xu et al., CVPR 2025): direction of an update, whole and by sign.

TDA_i = cos(d_i, G) and MPSA_i = share of the `share` largest |coordinates| of d_i whose sign is the
principal sign of the cohort, sign(Σ_j sign(d_j)). Each becomes MZ = |v − median| / std; a client is
kept if both are below their limits, 1 by default. The graded score is the larger of the two.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_shield.baselines.observed import Floats, Observed, products
from fl_shield.baselines.protocol import finite

TOP_SHARE = 0.3
"""Share of the coordinates that count for MPSA, as published."""


def temporal_alignment(
    updates: NDArray[np.floating], norms: Floats, reference: NDArray[np.floating]
) -> Floats:
    """Return TDA `(clients,)`: cosines of the updates and the global parameters."""
    scale = norms * float(np.linalg.norm(reference.astype(np.float64)))
    dots = products(updates, reference[None, :])[:, 0]
    return np.divide(dots, scale, out=np.zeros_like(dots), where=scale > 0)


def principal_sign_alignment(updates: NDArray[np.floating], share: float = TOP_SHARE) -> Floats:
    """Return MPSA `(clients,)`: shares of the largest coordinates with the principal sign."""
    size = updates.shape[1]
    top = max(int(size * share), 1)
    signs = np.zeros(size)
    for update in updates:
        signs += np.sign(update)
    principal = np.sign(signs)
    result = np.zeros(updates.shape[0])
    for index, update in enumerate(updates):
        chosen = np.argpartition(np.abs(update), size - top)[size - top :]
        result[index] = float(np.mean(np.sign(update[chosen]) == principal[chosen]))
    return result


def median_z(values: Floats) -> Floats:
    """Return |v − median| / std `(clients,)`; zeros where nothing spreads."""
    if not values.size:
        return np.zeros(0)
    spread = float(values.std())
    distance = np.abs(values - np.median(values))
    return distance / spread if spread > 0 else np.zeros_like(distance)


class AlignInsScore:
    """max(MZ of TDA, MZ of MPSA); AlignIns keeps clients below 1."""

    name = "alignins"

    def score(self, observed: Observed) -> Floats:
        """Return the larger of the two MZ scores `(clients,)`."""
        direction = temporal_alignment(observed.updates, observed.norms, observed.reference)
        sign = principal_sign_alignment(observed.updates)
        return finite(np.maximum(median_z(direction), median_z(sign)))
