"""FLAME (Nguyen et al., USENIX Security 2022, algorithm 1): clustering of models by cosine.

FLAME decides by HDBSCAN on the cosine distances of the *models* (global + update). Two statistics
are made of it: the label itself (1 outside the majority's cluster), and a graded one, the median
cosine distance of a client to the others in the matrix that is clustered.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_shield.baselines.clustering import NOISE, hdbscan_labels
from fl_shield.baselines.observed import Floats, Observed, cosines, products
from fl_shield.baselines.protocol import finite


def model_cosine_distances(observed: Observed) -> Floats:
    """Return `1 − cos(W_i, W_j)`, `(clients, clients)`, of the clients' full parameters."""
    cross = products(observed.updates, observed.reference[None, :])[:, 0]
    square = float(products(observed.reference[None, :])[0, 0])
    gram = observed.gram + cross[:, None] + cross[None, :] + square
    distances = 1.0 - cosines(gram)
    np.fill_diagonal(distances, 0.0)
    return np.clip((distances + distances.T) / 2, 0.0, 2.0)


def majority_cluster(distances: Floats) -> NDArray[np.bool_]:
    """Return who is in the cluster of more than half the clients; all if there is none.

    HDBSCAN with min_cluster_size ⌊n/2⌋ + 1, min_samples 1 and a single cluster allowed. Where
    everybody is noise nobody stands out, and all are kept.
    """
    labels = hdbscan_labels(distances, min_cluster_size=distances.shape[0] // 2 + 1)
    if not (labels != NOISE).any():
        return np.ones(len(labels), dtype=np.bool_)
    return np.asarray(labels != NOISE)


def median_distance(distances: Floats) -> Floats:
    """Return the median distance of each client to the others; 0 for a client alone."""
    count = distances.shape[0]
    if count < 2:
        return np.zeros(count)
    others = distances[~np.eye(count, dtype=bool)].reshape(count, count - 1)
    return np.asarray(np.median(others, axis=1))


class FlameDistance:
    """Median cosine distance to the other clients' models."""

    name = "flame_cosine"

    def score(self, observed: Observed) -> Floats:
        """Return the median distances `(clients,)`."""
        return finite(median_distance(model_cosine_distances(observed)))


class FlameCluster:
    """FLAME's decision: 1 for a client outside the majority's cluster, else 0."""

    name = "flame_cluster"

    def score(self, observed: Observed) -> Floats:
        """Return the decisions `(clients,)`."""
        return finite((~majority_cluster(model_cosine_distances(observed))).astype(np.float64))
