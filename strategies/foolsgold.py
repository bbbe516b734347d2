"""FoolsGold: sybils are too alike over the rounds (Fung et al., RAID 2020, algorithm 1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from torch import nn

from fl_shield.baselines.foolsgold import foolsgold_weights, pardoned_similarity
from fl_shield.baselines.observed import Observed, cosines, products
from fl_shield.strategies.meta_shield import Probes
from fl_shield.strategies.rival import Plan, Rival


class FoolsGold(Rival):
    """Weights updates by how unlike each client's accumulated updates are to all others'.

    The history of a client is Σ d_i / max(1, ‖d_i‖) over the rounds it took part in; it takes
    `parameters · 4` bytes a client.

    Args:
        strategy: What averages.
        model: The federated model.
        probes: Not used.
        options: The keyword arguments of `Rival`.
    """

    def __init__(
        self, strategy: Strategy, model: nn.Module, probes: Probes, **options: Any
    ) -> None:
        super().__init__(strategy, model, probes, **options)
        self.history: dict[int, NDArray[np.float32]] = {}

    def decide(self, observed: Observed) -> Plan:
        """Add the round to the history, weight by its similarities."""
        rows = np.empty_like(observed.updates)
        for row, client, update, norm in zip(
            rows, observed.cohort.clients, observed.updates, observed.norms, strict=True
        ):
            step = update / np.float32(max(1.0, norm))
            row[:] = self.history.get(client.client_id, np.float32(0.0)) + step
            self.history[client.client_id] = row.copy()
        cosine = cosines(products(rows))
        return Plan(foolsgold_weights(cosine), np.ones(len(observed)), pardoned_similarity(cosine))
