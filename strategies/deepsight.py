"""DeepSight: clusters of what the last layer was trained for (Rieger et al., NDSS 2022)."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from torch import nn

from fl_shield.baselines.clustering import NOISE, hdbscan_labels
from fl_shield.baselines.deepsight import ddifs, exceedings, neups
from fl_shield.baselines.observed import (
    Floats,
    Observed,
    cosines,
    products,
    squared_distances,
)
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.strategies.meta_shield import Probes
from fl_shield.strategies.rival import Plan, Rival, clip_factors, equal_weights

NUM_SEEDS = 3
"""Draws of noise inputs, each clustered by itself."""


class DeepSight(Rival):
    """Accepts the clusters with few suspicious models, clips to the median norm of all clients.

    A model is suspicious if its threshold exceedings are below half the cohort's median.

    Args:
        strategy: What averages.
        model: The federated model.
        probes: Only their form is used, for noise inputs.
        num_noise: Noise inputs of a draw; the paper's 20 000 cost most of a round on a CPU.
        max_suspicious: τ: clusters with this share of suspicious models or more are left out.
        options: The keyword arguments of `Rival`.

    Raises:
        ConfigurationError: if a setting is impossible.
    """

    def __init__(
        self,
        strategy: Strategy,
        model: nn.Module,
        probes: Probes,
        *,
        num_noise: int = 20_000,
        max_suspicious: float = 1 / 3,
        **options: Any,
    ) -> None:
        super().__init__(strategy, model, probes, **options)
        problems = []
        if num_noise < 1:
            problems.append(expected("num_noise", "1 or more", num_noise))
        if not 0 < max_suspicious <= 1:
            problems.append(expected("max_suspicious", "in (0, 1]", max_suspicious))
        raise_all(problems, ConfigurationError)
        self.num_noise, self.max_suspicious = num_noise, max_suspicious

    def decide(self, observed: Observed) -> Plan:
        """Classify by exceedings, cluster three ways, cluster the clusterings, filter, clip."""
        weight, bias = observed.head()
        neup = neups(weight, bias)
        counts = exceedings(neup)
        suspicious = counts < np.median(counts) / 2
        last = bias if bias.any() else weight.reshape(len(observed), -1)
        draws = [
            ddifs(observed, self.seed * NUM_SEEDS + draw, self.num_noise)
            for draw in range(NUM_SEEDS)
        ]
        together = [
            np.mean([apart(cluster(euclidean(draw))) for draw in draws], axis=0),
            apart(cluster(euclidean(neup))),
            apart(cluster(1.0 - cosines(products(last)))),
        ]
        labels = cluster(np.mean(together, axis=0))
        kept = accepted(labels, suspicious, self.max_suspicious)
        limit = float(np.median(observed.norms))
        factors = clip_factors(observed.norms, limit)
        return Plan(equal_weights(kept), factors, suspicious_share(labels, suspicious))


def cluster(distances: Floats) -> NDArray[np.int64]:
    """Return HDBSCAN's labels with clusters of two and more."""
    return hdbscan_labels(np.clip(distances, 0.0, None), min_cluster_size=2)


def euclidean(rows: Floats) -> Floats:
    """Return Euclidean distances of rows, `(clients, clients)`."""
    return np.asarray(np.sqrt(squared_distances(products(rows - rows.mean(axis=0)))))


def apart(labels: NDArray[np.int64]) -> Floats:
    """Return 0 for pairs with the same label and 1 for others; noise counts as one label."""
    return np.asarray(labels[:, None] != labels[None, :], dtype=np.float64)


def suspicious_share(labels: NDArray[np.int64], suspicious: NDArray[np.bool_]) -> Floats:
    """Return the share of suspicious models in each client's cluster; noise stands alone."""
    shares = suspicious.astype(np.float64)
    for label in set(labels.tolist()) - {NOISE}:
        shares[labels == label] = suspicious[labels == label].mean()
    return shares


def accepted(
    labels: NDArray[np.int64], suspicious: NDArray[np.bool_], max_suspicious: float
) -> NDArray[np.bool_]:
    """Return who is kept: clusters below the share, and noise that is not suspicious."""
    return np.asarray(suspicious_share(labels, suspicious) < max_suspicious)
