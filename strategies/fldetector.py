"""FLDetector: clients whose updates do not follow from their earlier ones (Zhang et al., KDD 2022).

The server predicts d_i(t) = d_i(t−1) + H · (w(t) − w(t−1)) with an L-BFGS Hessian of the average
update. A client's score is the distance of its update to the prediction, as a share of the round's
sum, averaged over a window. When the gap statistic sees more than one cluster of scores, 2-means
splits them, and the clients with the higher ones are removed for good.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from torch import nn

from fl_shield.baselines.clustering import gap_clusters, two_means
from fl_shield.baselines.fldetector import hessian_product
from fl_shield.baselines.observed import Floats, Observed
from fl_shield.errors import ConfigurationError, expected
from fl_shield.strategies.meta_shield import Probes
from fl_shield.strategies.rival import Plan, Rival, equal_weights

Vector = NDArray[np.float32]


class FLDetector(Rival):
    """Removes clients that are inconsistent over time; the others are averaged equally.

    The paper starts training anew after a detection; here it goes on without those removed. A
    client is compared with its own last update, however many rounds ago that was, and has the
    score 0 until it has one. Memory: `parameters · 4` bytes a client and twice the window.

    Args:
        strategy: What averages.
        model: The federated model.
        probes: Not used.
        window: N: rounds of the Hessian and of the average; nobody is removed before.
        options: The keyword arguments of `Rival`.

    Raises:
        ConfigurationError: if the window is empty.
    """

    def __init__(
        self,
        strategy: Strategy,
        model: nn.Module,
        probes: Probes,
        *,
        window: int = 10,
        **options: Any,
    ) -> None:
        super().__init__(strategy, model, probes, **options)
        if window < 1:
            raise ConfigurationError(expected("window", "1 or more", window))
        self.window = window
        self.removed: set[int] = set()
        self._steps: deque[Vector] = deque(maxlen=window)
        self._changes: deque[Vector] = deque(maxlen=window)
        self._errors: defaultdict[int, deque[float]] = defaultdict(lambda: deque(maxlen=window))
        self._updates: dict[int, Vector] = {}
        self._last: tuple[Vector, Vector] | None = None
        self._rounds = 0

    def decide(self, observed: Observed) -> Plan:
        """Score by prediction error, remove the higher cluster, remember the round."""
        ids = [client.client_id for client in observed.cohort.clients]
        errors = self._prediction_errors(observed, ids)
        for client, error in errors.items():
            self._errors[client].append(error)
        scores = np.array([np.mean(self._errors[c]) if self._errors[c] else 0.0 for c in ids])
        self._rounds += 1
        known = np.array([bool(self._errors[c]) and c not in self.removed for c in ids])
        if self._rounds > self.window and known.sum() >= 3:
            self.removed |= {
                client
                for client, guilty in zip(
                    np.array(ids, dtype=object)[known], outstanding(scores[known]), strict=True
                )
                if guilty
            }
        kept = np.array([client not in self.removed for client in ids])
        self._remember(observed, ids, kept)
        return Plan(equal_weights(kept), np.ones(len(observed)), scores)

    def _prediction_errors(self, observed: Observed, ids: list[int]) -> dict[int, float]:
        """Return errors as shares of their sum, for the clients that have an earlier update."""
        if self._last is None:
            return {}
        step = observed.reference - self._last[0]
        drift = hessian_product(self._steps, self._changes, step)
        errors = {
            client: float(np.linalg.norm(self._updates[client] + drift - update))
            for client, update in zip(ids, observed.updates, strict=True)
            if client in self._updates
        }
        total = sum(errors.values())
        return {client: error / total if total > 0 else 0.0 for client, error in errors.items()}

    def _remember(self, observed: Observed, ids: list[int], kept: NDArray[np.bool_]) -> None:
        rows = observed.updates[kept] if kept.any() else observed.updates
        average = rows.mean(axis=0)
        if self._last is not None:
            self._steps.append(observed.reference - self._last[0])
            self._changes.append(average - self._last[1])
        self._last = observed.reference, average
        for client, update in zip(ids, observed.updates, strict=True):
            self._updates[client] = update.copy()


def outstanding(scores: Floats) -> NDArray[np.bool_]:
    """Return who is in the higher cluster of scores; nobody if the gap statistic sees one cluster.

    Args:
        scores: `(clients,)`; scaled to [0, 1] for the gap statistic, as published.
    """
    width = float(scores.max() - scores.min())
    nobody = np.zeros(len(scores), dtype=np.bool_)
    if width <= 0.0:
        return nobody
    scaled = (scores - scores.min()) / width
    if len(set(gap_clusters(scaled[:, None]).tolist())) < 2:
        return nobody
    return two_means(scaled)
