"""The best that any detector can do: a simulation knows who attacks, and leaves exactly them out.

What is missing to the run without attackers is then what their honest samples would have given; no
defence can bring that back. It works in simulations only, where a run writes `truth.json` beside
the audit log.
"""

from __future__ import annotations

import json
from functools import cached_property

import numpy as np

from fl_shield.baselines.observed import Observed
from fl_shield.errors import ConfigurationError, expected
from fl_shield.strategies.rival import Plan, Rival


class Oracle(Rival):
    """Leaves out the clients that the simulation says are malicious, and averages the others.

    It takes what every `Rival` takes; `truth.json` lies beside its `audit_log`.
    """

    @cached_property
    def _malicious(self) -> frozenset[int]:
        """The nodes that attack.

        Raises:
            ConfigurationError: if there is no truth beside the audit log.
        """
        truth = None if self.audit is None else self.audit.path.parent / "truth.json"
        if truth is None or not truth.is_file():
            raise ConfigurationError(
                expected(
                    "audit_log",
                    "the log of a simulation, with truth.json beside it",
                    "nothing" if truth is None else f"no {truth}",
                    "The oracle works in fl-shield simulate and fl-shield study only.",
                )
            )
        known = json.loads(truth.read_text(encoding="utf-8"))
        return frozenset(int(node) for node, client in known.items() if client["malicious"])

    def decide(self, observed: Observed) -> Plan:
        """Keep the honest by their numbers of examples; a client's score is the truth."""
        clients = observed.cohort.clients
        guilty = np.array([client.client_id in self._malicious for client in clients])
        examples = np.array([client.num_examples for client in clients], dtype=np.float64)
        return Plan(
            np.where(guilty, 0.0, examples), np.ones(len(clients)), guilty.astype(np.float64)
        )
