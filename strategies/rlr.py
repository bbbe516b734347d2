"""Robust learning rate: coordinates without agreement go backwards (Ozdayi et al., AAAI 2021)."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from torch import nn

from fl_shield.baselines.observed import Observed
from fl_shield.errors import ConfigurationError, expected
from fl_shield.strategies.meta_shield import Probes
from fl_shield.strategies.rival import Aggregate, Plan, Rival


class RobustLearningRate(Rival):
    """Flips the step of every parameter in which fewer than θ signs agree.

    Nobody is left out: the average is FedAvg's, weighted by number of examples, and a coordinate
    with |Σ sign(d_i)| < θ moves by the opposite of its average.

    Args:
        strategy: What averages.
        model: The federated model.
        probes: Not used.
        threshold: θ, in clients; the authors' code takes 4 of 10.
        options: The keyword arguments of `Rival`.

    Raises:
        ConfigurationError: if the threshold is negative.
    """

    def __init__(
        self,
        strategy: Strategy,
        model: nn.Module,
        probes: Probes,
        *,
        threshold: float = 4.0,
        **options: Any,
    ) -> None:
        super().__init__(strategy, model, probes, **options)
        if not threshold >= 0:
            raise ConfigurationError(expected("threshold", "0 or more", threshold))
        self.threshold = threshold

    def decide(self, observed: Observed) -> Plan:
        """FedAvg's weights."""
        claims = np.array([client.num_examples for client in observed.cohort.clients])
        return Plan(claims, np.ones(len(observed)), np.zeros(len(observed)))

    def refine(self, observed: Observed, plan: Plan, aggregate: Aggregate) -> Aggregate:
        """Flip the sign of the step where too few agree."""
        signs = np.zeros(observed.updates.shape[1])
        for update in observed.updates:
            signs += np.sign(update)
        flipped = np.abs(signs) < self.threshold
        refined, start = dict(aggregate), 0
        for name in observed.names:
            array, base = aggregate[name], observed.cohort.reference[name].astype(np.float64)
            turn = flipped[start : start + base.size].reshape(base.shape)
            step = array.astype(np.float64) - base
            refined[name] = np.asarray(base + np.where(turn, -step, step), dtype=array.dtype)
            start += base.size
        return refined
