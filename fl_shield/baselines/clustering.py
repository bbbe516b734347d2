"""HDBSCAN on precomputed distances, as FLAME and DeepSight use it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_shield.baselines.observed import Floats

NOISE = -1
"""Label of clients that belong to no cluster."""


def hdbscan_labels(
    distances: Floats, min_cluster_size: int, min_samples: int = 1
) -> NDArray[np.int64]:
    """Return cluster labels `(clients,)`; `NOISE` for none.

    scikit-learn counts a point among its own neighbours and the library of the papers does not, so
    its `min_samples` is one more. Fewer than three clients form one cluster.

    Args:
        distances: `(clients, clients)`, symmetric.
        min_cluster_size: Fewest members of a cluster.
        min_samples: Neighbours that make a point a core point, itself not counted.
    """
    from sklearn.cluster import HDBSCAN  # seconds to import

    count = distances.shape[0]
    if count < 3:
        return np.zeros(count, dtype=np.int64)
    if float(distances.max()) <= 0.0:  # no spread: HDBSCAN would divide by it
        return np.zeros(count, dtype=np.int64)
    clustering = HDBSCAN(
        min_cluster_size=min(max(min_cluster_size, 2), count),
        min_samples=min(min_samples + 1, count),
        metric="precomputed",
        allow_single_cluster=True,
        copy=True,
    )
    return np.asarray(clustering.fit(distances).labels_, dtype=np.int64)


def two_means(values: Floats) -> NDArray[np.bool_]:
    """Return which of the values `(n,)` are in the higher of the two clusters of 2-means.

    In one dimension the best split is found exactly, by trying every cut of the sorted values.
    """
    order = np.argsort(values, kind="stable")
    sorted_values = values[order]
    best, cut = np.inf, 0
    for size in range(1, len(values)):
        low, high = sorted_values[:size], sorted_values[size:]
        cost = float(((low - low.mean()) ** 2).sum() + ((high - high.mean()) ** 2).sum())
        if cost < best:
            best, cut = cost, size
    high_cluster = np.zeros(len(values), dtype=np.bool_)
    if cut:
        high_cluster[order[cut:]] = True
    return high_cluster
