"""The best that any detector can do: a simulation knows who attacks, and leaves exactly them out.

What is missing to the run without attackers is then what their honest samples would have given; no
defence can bring that back. It works in simulations only, where a run writes `truth.json` beside
the audit log.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from torch import nn

from fl_shield.baselines.observed import Observed
from fl_shield.errors import ConfigurationError, expected
from fl_shield.strategies.meta_shield import Probes
from fl_shield.strategies.rival import Plan, Rival


class Oracle(Rival):
    """Leaves out the clients that the simulation says are malicious, and averages the others.

    Args:
        strategy: What averages.
        model: The federated model.
        probes: Not used.
        audit_log: The audit log of the run; `truth.json` lies beside it.
        options: The other keyword arguments of `Rival`.
    """

    def __init__(
        self,
        strategy: Strategy,
        model: nn.Module,
        probes: Probes,
        *,
        audit_log: str | Path | None = None,
        **options: Any,
    ) -> None:
        super().__init__(strategy, model, probes, audit_log=audit_log, **options)
        self._truth = None if audit_log is None else Path(audit_log).parent / "truth.json"

    def _malicious(self) -> set[int]:
        """Return the nodes that attack.

        Raises:
            ConfigurationError: if there is no truth beside the audit log.
        """
        if self._truth is None or not self._truth.is_file():
            raise ConfigurationError(
                expected(
                    "audit_log",
                    "the log of a simulation, with truth.json beside it",
                    "nothing" if self._truth is None else f"no {self._truth}",
                    "The oracle works in fl-shield simulate and fl-shield study only.",
                )
            )
        known = json.loads(self._truth.read_text(encoding="utf-8"))
        return {int(node) for node, client in known.items() if client["malicious"]}

    def decide(self, observed: Observed) -> Plan:
        """Keep the honest by their numbers of examples; a client's score is the truth."""
        clients, malicious = observed.cohort.clients, self._malicious()
        guilty = np.array([client.client_id in malicious for client in clients])
        examples = np.array([client.num_examples for client in clients], dtype=np.float64)
        return Plan(
            np.where(guilty, 0.0, examples), np.ones(len(clients)), guilty.astype(np.float64)
        )
