"""FedDefender: differential testing on random inputs (Gill et al., SE4SafeML 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from torch import nn

from fl_shield.baselines.feddefender import active_neurons, random_inputs, suspect_votes
from fl_shield.baselines.observed import Observed
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.strategies.meta_shield import Probes
from fl_shield.strategies.rival import Plan, Rival


class FedDefender(Rival):
    """Cuts the weight of the client that most random inputs accuse.

    With confidence c (the share of inputs that accuse the most accused) above the threshold its
    weight is 0, else c times the smallest number of examples of the round. Somebody is accused in
    every round, attacked or not.

    Args:
        strategy: What averages.
        model: The federated model.
        probes: Only their form is used, for random inputs.
        num_inputs: Random inputs.
        threshold: Confidence above which the client is left out.
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
        num_inputs: int = 10,
        threshold: float = 0.4,
        **options: Any,
    ) -> None:
        super().__init__(strategy, model, probes, **options)
        problems = []
        if num_inputs < 1:
            problems.append(expected("num_inputs", "1 or more", num_inputs))
        if not 0 <= threshold <= 1:
            problems.append(expected("threshold", "in [0, 1]", threshold))
        raise_all(problems, ConfigurationError)
        self.num_inputs, self.threshold = num_inputs, threshold

    def decide(self, observed: Observed) -> Plan:
        """Accuse on every input, cut the weight of the most accused."""
        seed = self.seed + observed.cohort.round_number
        inputs = random_inputs(observed.probes.inputs, self.num_inputs, seed)
        clients = observed.cohort.clients
        active = np.stack([active_neurons(observed, c.load(), inputs) for c in clients])
        confidence = suspect_votes(active) / self.num_inputs
        weights = np.array([client.num_examples for client in clients], dtype=np.float64)
        top = float(confidence.max())
        if top > 0.0:
            accused = confidence == top
            weights[accused] = 0.0 if top > self.threshold else int(weights.min() * top)
        return Plan(weights, np.ones(len(clients)), confidence)
