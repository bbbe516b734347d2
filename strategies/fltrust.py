"""FLTrust: trust by agreement with the server's own update (Cao et al., NDSS 2021, section IV)."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from torch import Tensor, nn

from fl_shield.baselines.fltrust import trust_scores
from fl_shield.baselines.observed import Observed
from fl_shield.errors import ConfigurationError, expected
from fl_shield.strategies.meta_shield import Probes
from fl_shield.strategies.rival import Plan, Rival
from fl_shield.training.local import LocalTraining


class FLTrust(Rival):
    """Weights updates by ReLU(cos(d_i, d_0)) and scales them to the norm of d_0.

    Where no client agrees with the server at all, the round has no result.

    Args:
        strategy: What averages.
        model: The federated model.
        probes: The root set, labelled; the paper takes 100 samples.
        training: How the server trains on it: as its clients do. None for `LocalTraining()`.
        options: The keyword arguments of `Rival`.

    Raises:
        ConfigurationError: if the probes cannot be trained on.
    """

    def __init__(
        self,
        strategy: Strategy,
        model: nn.Module,
        probes: Probes,
        *,
        training: LocalTraining | None = None,
        **options: Any,
    ) -> None:
        super().__init__(strategy, model, probes, **options)
        if self.probes.labels is None or not isinstance(self.probes.inputs, Tensor):
            raise ConfigurationError(
                expected(
                    "probes",
                    "one tensor of inputs with labels",
                    "unlabelled" if self.probes.labels is None else "a mapping of tensors",
                    "FLTrust trains on the server's samples: ProbeSet(inputs, labels).",
                )
            )
        self.training = training

    def decide(self, observed: Observed) -> Plan:
        """Trust scores as weights; each update gets the norm of the server's."""
        trusted = observed.trusted_update
        trust = trust_scores(observed.updates, observed.norms, trusted)
        norms = observed.norms
        scale = np.divide(
            float(np.linalg.norm(trusted)), norms, out=np.ones_like(norms), where=norms > 0
        )
        return Plan(weights=trust, factors=scale, scores=-trust)
