"""MESAS: six metrics of the update, each tested by itself (Krauß and Dmitrienko, CCS 2023)."""

from __future__ import annotations

import numpy as np

from fl_shield.baselines.mesas import METRICS, metrics, votes
from fl_shield.baselines.observed import Observed
from fl_shield.strategies.rival import Plan, Rival, equal_weights


class Mesas(Rival):
    """Leaves out whom any of six metrics prunes, and averages the others equally.

    The keyword arguments are those of `Rival`; probes are not used.
    """

    def decide(self, observed: Observed) -> Plan:
        """Prune; a client's score is the share of the metrics that prune it."""
        counts = votes(metrics(observed))
        weights = equal_weights(counts == 0)
        return Plan(weights, np.ones(len(observed)), counts / len(METRICS))
