"""Norm clipping and weak differential privacy (Sun et al., 2019, "Can You Really Backdoor FL?")."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from torch import nn

from fl_shield.baselines.observed import Observed
from fl_shield.errors import ConfigurationError, expected
from fl_shield.strategies.meta_shield import Probes
from fl_shield.strategies.rival import Plan, Rival, clip_factors


class NormClipping(Rival):
    """Clips every update to a fixed norm and averages them equally.

    Args:
        strategy: What averages.
        model: The federated model.
        probes: Not used.
        max_norm: M; it has to fit the task. Benchmarks take 3.
        noise: σ: standard deviation of noise on the averaged parameters.
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
        max_norm: float = 3.0,
        noise: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(strategy, model, probes, **options)
        if not max_norm > 0:
            raise ConfigurationError(expected("max_norm", "above 0", max_norm))
        if not noise >= 0:
            raise ConfigurationError(expected("noise", "0 or more", noise))
        self.max_norm, self.noise = max_norm, noise

    def decide(self, observed: Observed) -> Plan:
        """Clip; a client's score is its norm."""
        factors = clip_factors(observed.norms, self.max_norm)
        return Plan(np.ones(len(observed)), factors, observed.norms, self.noise)


class WeakDP(NormClipping):
    """Norm clipping with a little noise: too little for a privacy guarantee.

    Args:
        strategy: What averages.
        model: The federated model.
        probes: Not used.
        max_norm: M.
        noise: σ.
        options: The keyword arguments of `Rival`.
    """

    def __init__(
        self,
        strategy: Strategy,
        model: nn.Module,
        probes: Probes,
        *,
        max_norm: float = 5.0,
        noise: float = 0.025,
        **options: Any,
    ) -> None:
        super().__init__(strategy, model, probes, max_norm=max_norm, noise=noise, **options)
