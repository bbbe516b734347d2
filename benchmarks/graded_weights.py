"""What the shield's default policy passes on of honest and of malicious updates.

Rounds of an evaluation are judged one after the other, as on a server, and the weights of the
verdicts are set against the truth. What the weights did to the model is not played out: clients of
the next round start from where the federation went without a shield.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.detection_figures import Scores
from fl_shield.descriptors.table import DescriptorTable
from fl_shield.detector.meta_detector import Calibration
from fl_shield.judge.judge import Judge
from fl_shield.judge.policy import Action, Policy
from fl_shield.shadow.recipe import ODDITIES
from fl_shield.shadow.table import EpisodeTable

ASKED: Mapping[str, Mapping[str, float]] = {
    "as shipped": {},
    "worth 3 honest updates": {"worth_losing": 3.0},
    "worth 4": {"worth_losing": 4.0},
    "worth 9": {"worth_losing": 9.0},
    "5 % expected to attack": {"expected_share": 0.05},
    "15 %": {"expected_share": 0.15},
    "20 %": {"expected_share": 0.2},
}
"""Settings of the policy that are compared."""


def graded(calibration: Calibration, **asked: Any) -> Policy:
    """Return the shield's default policy with a detector of that calibration."""
    return Policy(Action.GRADED, calibration.threshold, even_score=calibration.even_score, **asked)


def passed_on(
    tables: Sequence[EpisodeTable], scores: Scores, policy: Policy
) -> dict[str, float | None]:
    """Return mean shares of updates that pass.

    - `passed_malicious`: of the malicious.
    - `passed_harm`: of the malicious, weighted by the rise of the attack success rate (no less than
      0) that the update alone would cause.
    - `lost_benign`: what honest updates lose in rounds with attackers.
    - `lost_clean`: the same where nobody attacks.

    Args:
        tables: Rounds of any federations; those of one are judged in their order.
        scores: Calibrated scores of their clients.
        policy: The policy.

    Returns:
        None where there is no such update, or no harm.
    """
    weights = _weights(tables, scores, policy)
    truth = np.concatenate([t.malicious for t in tables])
    attacked = np.concatenate([np.full(len(t), t.malicious.any()) for t in tables])
    harm = np.concatenate([np.maximum(t.facts["harm"], 0.0) for t in tables])
    return {
        "passed_malicious": _mean(weights[truth]),
        "passed_harm": _mean(weights[truth], harm[truth]),
        "lost_benign": _mean(1.0 - weights[~truth & attacked]),
        "lost_clean": _mean(1.0 - weights[~truth & ~attacked]),
    }


def lost_by_oddity(
    tables: Sequence[EpisodeTable], scores: Scores, policy: Policy
) -> dict[str, dict[str, Any]]:
    """Return what honest updates lose by what is odd about their clients, and their number.

    Args:
        tables: Rounds of any federations, as for `passed_on`.
        scores: Calibrated scores of their clients.
        policy: The policy.

    Returns:
        `lost` and `updates` for each of `ODDITIES`; `lost` is None where there is no such client.
    """
    weights = _weights(tables, scores, policy)
    honest = ~np.concatenate([t.malicious for t in tables])
    oddities = np.concatenate([t.facts["oddities"] for t in tables])
    found = {}
    for oddity in ODDITIES:
        chosen = honest & (oddities == oddity)
        found[oddity] = {"lost": _mean(1.0 - weights[chosen]), "updates": int(chosen.sum())}
    return found


def _weights(tables: Sequence[EpisodeTable], scores: Scores, policy: Policy) -> NDArray[np.float64]:
    """Return the weights of all updates, in the order of the tables."""
    runs: dict[str, list[int]] = defaultdict(list)
    for index, table in enumerate(tables):
        runs[table.run].append(index)
    found: dict[int, NDArray[np.float64]] = {}
    for rounds in runs.values():
        judge = Judge(policy)
        for index in sorted(rounds, key=lambda i: tables[i].round_number):
            table = tables[index]
            described = DescriptorTable(table.names, table.raw, table.raw)
            unexplained = np.empty((0, 0))
            verdicts = judge.judge(
                table.round_number, table.client_ids.tolist(), scores[index], described, unexplained
            )
            found[index] = np.array([verdict.weight for verdict in verdicts])
    return np.concatenate([found[index] for index in range(len(tables))])


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> float | None:
    """Return the mean, None where nothing weighs."""
    total = len(values) if weights is None else weights.sum()
    return float(np.average(values, weights=weights)) if total > 0 else None


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean of every figure of `passed_on` over data sets, of those that have it."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for key, value in row.items():
            if value is not None:
                found[key].append(value)
    return {key: float(np.mean(values)) for key, values in found.items()}
