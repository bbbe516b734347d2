"""CrowdGuard: hidden layers on clean samples, validated by the server (Rieger et al., 2024)."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from torch import Tensor, nn

from fl_shield.baselines.crowdguard import NUM_REPORTS, agreed, reports
from fl_shield.baselines.observed import Observed
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.strategies.meta_shield import Probes
from fl_shield.strategies.rival import Plan, Rival, equal_weights
from fl_shield.training.local import LocalTraining


class CrowdGuard(Rival):
    """Leaves out whom the agreed report accuses, and averages the others equally.

    Args:
        strategy: What averages.
        model: The federated model.
        probes: Labelled samples, dealt out to the reports.
        num_reports: Reports that the server makes, each with a model and samples of its own.
        training: How the server trains those models: as its clients do. None for `LocalTraining()`.
        options: The keyword arguments of `Rival`.

    Raises:
        ConfigurationError: if a setting is impossible, or the probes cannot be trained on.
    """

    def __init__(
        self,
        strategy: Strategy,
        model: nn.Module,
        probes: Probes,
        *,
        num_reports: int = NUM_REPORTS,
        training: LocalTraining | None = None,
        **options: Any,
    ) -> None:
        super().__init__(strategy, model, probes, **options)
        problems = []
        if self.probes.labels is None or not isinstance(self.probes.inputs, Tensor):
            problems.append(
                expected(
                    "probes",
                    "one tensor of inputs with labels",
                    "unlabelled" if self.probes.labels is None else "a mapping of tensors",
                    "CrowdGuard trains on the server's samples: ProbeSet(inputs, labels).",
                )
            )
        if num_reports < 1:
            problems.append(expected("num_reports", "1 or more", num_reports))
        raise_all(problems, ConfigurationError)
        self.num_reports, self.training = num_reports, training

    def decide(self, observed: Observed) -> Plan:
        """Report and agree; a client's score is the share of the reports that accuse it."""
        accused = reports(observed, self.num_reports)
        weights = equal_weights(~agreed(accused))
        return Plan(weights, np.ones(len(observed)), accused.mean(axis=0))
