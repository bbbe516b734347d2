"""RFLBAT: outliers and clusters in the plane of two components (Wang et al., 2022)."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from torch import nn

from fl_shield.baselines.clustering import gap_clusters
from fl_shield.baselines.observed import Floats, Observed, cosines
from fl_shield.baselines.rflbat import distance_sums, principal_coordinates
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.strategies.meta_shield import Probes
from fl_shield.strategies.rival import Plan, Rival, equal_weights


class Rflbat(Rival):
    """Drops far updates, keeps the cluster whose members are least alike, drops far ones again.

    Args:
        strategy: What averages.
        model: The federated model.
        probes: Not used.
        first_limit: ε₁: sums of distances above this multiple of the median are outliers.
        second_limit: ε₂: the same within the cluster that is kept.
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
        first_limit: float = 10.0,
        second_limit: float = 4.0,
        **options: Any,
    ) -> None:
        super().__init__(strategy, model, probes, **options)
        limits = (("first_limit", first_limit), ("second_limit", second_limit))
        raise_all(
            [expected(name, "1 or more", value) for name, value in limits if not value >= 1],
            ConfigurationError,
        )
        self.first_limit, self.second_limit = first_limit, second_limit

    def decide(self, observed: Observed) -> Plan:
        """Filter twice by distance, once by cluster."""
        coordinates = principal_coordinates(observed.gram)
        cosine = cosines(observed.gram)
        members = near(coordinates, np.arange(len(observed)), self.first_limit)
        labels = gap_clusters(coordinates[members], seed=self.seed)
        groups = [members[labels == label] for label in sorted(set(labels.tolist()))]
        # Attackers share a goal, so theirs is the cluster of the more similar updates.
        least = min(groups, key=lambda g: float(np.median(cosine[np.ix_(g, g)].mean(axis=1))))
        survivors = near(coordinates, least, self.second_limit)
        kept = np.isin(np.arange(len(observed)), survivors)
        return Plan(equal_weights(kept), np.ones(len(observed)), distance_sums(coordinates))


def near(coordinates: Floats, members: NDArray[np.intp], limit: float) -> NDArray[np.intp]:
    """Return the members whose sum of distances is at most `limit` times their median's."""
    sums = distance_sums(coordinates[members])
    return members[sums <= limit * np.median(sums)]
