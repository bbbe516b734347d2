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


def gap_clusters(
    points: NDArray[np.floating], max_clusters: int = 10, draws: int = 10, seed: int = 0
) -> NDArray[np.int64]:
    """Return k-means labels `(points,)` with the number of clusters that the gap statistic finds.

    Tibshirani, Walther and Hastie (2001): the smallest k with Gap(k) ≥ Gap(k + 1) − s(k + 1), where
    Gap compares the logarithm of the dispersion within clusters with that of uniform points in the
    same box.

    Args:
        points: `(points, dimensions)`.
        max_clusters: Largest number of clusters that is tried.
        draws: Uniform reference sets.
        seed: Seed of k-means and of the reference sets.
    """
    count = len(points)
    low, high = points.min(axis=0), points.max(axis=0)
    most = min(max_clusters, count - 1)
    if count < 3 or not (high > low).any():
        return np.zeros(count, dtype=np.int64)
    rng = np.random.default_rng(seed)
    references = [rng.uniform(low, high, size=points.shape) for _ in range(draws)]
    before: tuple[float, NDArray[np.int64]] | None = None
    for number in range(1, most + 1):
        labels, own = _k_means(points, number, seed)
        logs = [_k_means(reference, number, seed)[1] for reference in references]
        gap = float(np.mean(logs)) - own
        spread = float(np.std(logs)) * float(np.sqrt(1 + 1 / draws))
        if before is not None and before[0] >= gap - spread:
            return before[1]
        before = gap, labels
    assert before is not None
    return before[1]


def _k_means(
    points: NDArray[np.floating], number: int, seed: int
) -> tuple[NDArray[np.int64], float]:
    """Return labels and the logarithm of the dispersion within clusters."""
    import warnings

    from sklearn.cluster import KMeans  # seconds to import
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
        means = KMeans(number, n_init=4, random_state=seed).fit(points)
    return np.asarray(means.labels_, dtype=np.int64), float(np.log(means.inertia_ + 1e-12))
