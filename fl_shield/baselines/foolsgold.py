"""FoolsGold (Fung et al., RAID 2020, algorithm 1): sybils push in one direction, honest do not."""

from __future__ import annotations

import numpy as np

from fl_shield.baselines.observed import Floats, Observed, cosines
from fl_shield.baselines.protocol import finite


def pardoned_similarity(cosine: Floats) -> Floats:
    """Return each client's largest similarity to another, after pardoning.

    Args:
        cosine: `(n, n)` cosines of the (accumulated) updates.
    """
    count = cosine.shape[0]
    if count < 2:
        return np.zeros(count)
    others = cosine.copy()
    np.fill_diagonal(others, -np.inf)
    largest = others.max(axis=1)
    low, high = largest[:, None], largest[None, :]
    # An honest client who looks like a sybil is less alike to all others than the sybil is.
    pardon = np.divide(low, high, out=np.ones_like(cosine), where=(low < high) & (high > 0))
    pardoned = cosine * np.clip(pardon, 0.0, 1.0)
    np.fill_diagonal(pardoned, -np.inf)
    return np.asarray(pardoned.max(axis=1))


def foolsgold_weights(cosine: Floats) -> Floats:
    """Return the learning rates α_i in [0, 1], with confidence κ = 1.

    Args:
        cosine: `(n, n)` cosines of the accumulated updates.
    """
    if cosine.shape[0] < 2:
        return np.ones(cosine.shape[0])
    alpha = np.clip(1.0 - pardoned_similarity(cosine), 0.0, 1.0)
    top = float(alpha.max())
    if top <= 0.0:  # everybody is everybody's twin
        return np.zeros_like(alpha)
    alpha = np.minimum(alpha / top, 0.99)
    with np.errstate(divide="ignore"):
        logit = np.log(alpha / (1.0 - alpha)) + 0.5
    return np.asarray(np.clip(logit, 0.0, 1.0))


class FoolsGoldSimilarity:
    """Largest pardoned similarity to another client, from the updates of this round alone."""

    name = "foolsgold"

    def score(self, observed: Observed) -> Floats:
        """Return the similarities `(clients,)`."""
        return finite(pardoned_similarity(cosines(observed.gram)))
