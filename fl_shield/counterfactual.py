"""What the model would have been: the average of a captured round with and without its verdicts.

Averages are weighted by the claimed numbers of examples, bounded as the shield does (McMahan
et al., 2017, algorithm 1). Where another rule stands behind the shield, they show how far
the held-back updates pulled, not what that rule would have made of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_shield.cohort import Cohort
from fl_shield.judge.influence import bound_claims

Average = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Counterfactual:
    """The model after a round, as it is and as it would have been.

    Attributes:
        round_number: Round, counted from 1.
        held_back: Clients whose updates were dropped or passed on in part.
        passed: Average with the verdicts, in the global model's dtypes; None if nothing passed.
        everybody: Average of all captured updates.
        step: Norm of `everybody − global model`.
        distance: Norm of `everybody − passed`, or of the whole step where nothing passed.
    """

    round_number: int
    held_back: tuple[int, ...]
    passed: Average | None
    everybody: Average
    step: float
    distance: float


def counterfactual(
    cohort: Cohort, weights: Mapping[int, float], max_client_share: float
) -> Counterfactual:
    """Return the two averages of a captured round; one client's weights are read at a time.

    Args:
        cohort: The round, with at least one client.
        weights: Share of each client's update that was passed on, 0 for dropped; 1 if not named.
        max_client_share: The shield's bound of one client's share.
    """
    share = {c.client_id: weights.get(c.client_id, 1.0) for c in cohort.clients}
    claims = {c.client_id: c.num_examples for c in cohort.clients}
    everybody = bound_claims(claims, max_client_share)
    passed = bound_claims({c: n for c, n in claims.items() if share[c] > 0.0}, max_client_share)
    sums = [_zeros(cohort), _zeros(cohort)]
    for client in cohort.clients:
        state, node = client.load(), client.client_id
        parts = (everybody[node], passed.get(node, 0.0) * share[node])
        for name, base in cohort.reference.items():
            update = state[name].astype(np.float64) - base.astype(np.float64)
            for total, part in zip(sums, parts, strict=True):
                total[name] += part * update
    means = [
        {name: np.asarray(total[name] / max(sum(claimed.values()), 1e-300)) for name in total}
        for total, claimed in zip(sums, (everybody, passed), strict=True)
    ]
    return Counterfactual(
        cohort.round_number,
        tuple(node for node, part in share.items() if part < 1.0),
        _moved(cohort, means[1]) if passed else None,
        _moved(cohort, means[0]),
        _norm(means[0]),
        _norm({name: means[0][name] - means[1][name] for name in means[0]}),
    )


def _zeros(cohort: Cohort) -> dict[str, NDArray[np.float64]]:
    return {name: np.zeros(base.shape) for name, base in cohort.reference.items()}


def _moved(cohort: Cohort, mean: Mapping[str, NDArray[np.float64]]) -> Average:
    return {
        name: np.asarray(base.astype(np.float64) + mean[name], dtype=base.dtype)
        for name, base in cohort.reference.items()
    }


def _norm(arrays: Mapping[str, NDArray[np.float64]]) -> float:
    return math.sqrt(sum(float(np.vdot(array, array)) for array in arrays.values()))
