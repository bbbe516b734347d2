"""Multi-Krum (Blanchard et al., NeurIPS 2017, section 4): distances to the nearest neighbours."""

from __future__ import annotations

import numpy as np

from fl_shield.baselines.observed import Floats, Observed, squared_distances
from fl_shield.baselines.protocol import finite


def krum_scores(squared: Floats, num_malicious: int | None = None) -> Floats:
    """Return for each client the sum of its `n − f − 2` smallest squared distances.

    Args:
        squared: `(n, n)` squared distances.
        num_malicious: f; None takes the most for which the paper proves anything, `(n − 3) // 2`.
    """
    count = squared.shape[0]
    if count < 2:
        return np.zeros(count)
    f = max((count - 3) // 2, 0) if num_malicious is None else num_malicious
    neighbours = min(max(count - f - 2, 1), count - 1)
    others = squared + np.diag(np.full(count, np.inf))
    return finite(np.sort(others, axis=1)[:, :neighbours].sum(axis=1))


class MultiKrum:
    """Krum's score with f = (n − 3) // 2; Multi-Krum keeps the clients with the lowest."""

    name = "multi_krum"

    def score(self, observed: Observed) -> Floats:
        """Return the scores `(clients,)`."""
        return krum_scores(squared_distances(observed.gram))
