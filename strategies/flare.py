"""FLARE: trust by penultimate activations (Wang et al., AsiaCCS 2022)."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from torch import nn

from fl_shield.baselines.flare import TEMPERATURE, VOTE_SHARE, squared_mmd, trust, votes
from fl_shield.baselines.observed import Observed
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.strategies.meta_shield import Probes
from fl_shield.strategies.rival import Plan, Rival


class Flare(Rival):
    """Weights updates by the softmax of their votes; nobody is ever left out entirely.

    Args:
        strategy: What averages.
        model: The federated model.
        probes: The server's samples, whose activations are compared.
        vote_share: Share of the clients that each client votes for.
        temperature: Temperature of the softmax.
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
        vote_share: float = VOTE_SHARE,
        temperature: float = TEMPERATURE,
        **options: Any,
    ) -> None:
        super().__init__(strategy, model, probes, **options)
        problems = []
        if not 0 < vote_share <= 1:
            problems.append(expected("vote_share", "in (0, 1]", vote_share))
        if not temperature > 0:
            problems.append(expected("temperature", "above 0", temperature))
        raise_all(problems, ConfigurationError)
        self.vote_share, self.temperature = vote_share, temperature

    def decide(self, observed: Observed) -> Plan:
        """Votes by MMD, softmax over votes."""
        counts = votes(squared_mmd(observed.activations), self.vote_share)
        return Plan(trust(counts, self.temperature), np.ones(len(observed)), -counts)
