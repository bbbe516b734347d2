"""FLAME: cluster, clip, add noise (Nguyen et al., USENIX Security 2022, algorithm 1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from torch import nn

from fl_shield.baselines.flame import majority_cluster, median_distance, model_cosine_distances
from fl_shield.baselines.observed import Observed
from fl_shield.errors import ConfigurationError, expected
from fl_shield.strategies.meta_shield import Probes
from fl_shield.strategies.rival import Plan, Rival, clip_factors, equal_weights


class Flame(Rival):
    """Keeps the majority's cluster, clips to the median norm of *all* clients, adds noise.

    Args:
        strategy: What averages.
        model: The federated model.
        probes: Not used.
        noise_factor: λ: noise has the standard deviation λ · S, S the median norm. 0.001 is the
            paper's for images and words, 0.01 for network traffic.
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
        noise_factor: float = 0.001,
        **options: Any,
    ) -> None:
        super().__init__(strategy, model, probes, **options)
        if not noise_factor >= 0:
            raise ConfigurationError(expected("noise_factor", "0 or more", noise_factor))
        self.noise_factor = noise_factor

    def decide(self, observed: Observed) -> Plan:
        """Lines 6 to 14 of the algorithm."""
        distances = model_cosine_distances(observed)
        limit = float(np.median(observed.norms))
        return Plan(
            weights=equal_weights(majority_cluster(distances)),
            factors=clip_factors(observed.norms, limit),
            scores=median_distance(distances),
            noise=self.noise_factor * limit,
        )
