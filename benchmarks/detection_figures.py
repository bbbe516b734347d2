"""Figures of merit of suspicion scores over the rounds of an evaluation.

Scores are log-odds or statistics, higher is more suspicious; one array a round, in the order of the
round's clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from fl_shield.judge.evidence import EvidenceBook
from fl_shield.judge.policy import Policy
from fl_shield.shadow.table import EpisodeTable

Scores = Sequence[NDArray[np.float64]]

FALSE_ALARMS = 0.01
ROUNDS = 5
"""Rounds of participation after which a client is judged by its evidence."""


def figures(tables: Sequence[EpisodeTable], scores: Scores) -> dict[str, Any]:
    """Return all figures of an evaluation.

    - `auroc`: mean over the rounds that hold both kinds of client.
    - `tpr_at_1fpr`: share of the malicious updates above the score that 1 % of the benign exceed.
    - `tpr_at_1fpr_by_harm`: the same, weighted by the rise of the attack success rate (no less than
      0) that the update alone would cause.
    - `tpr_at_1fpr_5_rounds`: as the second, of a client's evidence after five rounds of one kind.
    """
    clean = [np.nan_to_num(np.asarray(s, dtype=np.float64)) for s in scores]
    pooled, truth = np.concatenate(clean), np.concatenate([t.malicious for t in tables])
    harm = np.concatenate([np.maximum(t.facts["harm"], 0.0) for t in tables])
    both = [(t, s) for t, s in zip(tables, clean, strict=True) if 0 < t.malicious.sum() < len(t)]
    evidence, guilty = evidence_after(tables, clean)
    return {
        "auroc": mean([roc_auc_score(t.malicious, s) for t, s in both]),
        "tpr_at_1fpr": tpr(pooled, truth),
        "tpr_at_1fpr_by_harm": tpr(pooled, truth, harm),
        "tpr_at_1fpr_5_rounds": tpr(evidence, guilty),
        "rounds": len(tables),
        "rounds_with_both": len(both),
        "updates": len(pooled),
        "malicious": int(truth.sum()),
        "seeds": len({t.run for t in tables}),
    }


HARMS = {
    "below 2": (-1.0, 0.02),
    "2 to 10": (0.02, 0.1),
    "10 to 30": (0.1, 0.3),
    "30 and more": (0.3, 1.1),
}
"""Rises of the attack success rate that one update alone would cause, in points."""


def by_harm(tables: Sequence[EpisodeTable], scores: Scores) -> dict[str, dict[str, Any]]:
    """Return, for each of `HARMS`, the mean AUROC of such attackers and how many there are.

    Each is compared with the benign clients of its round; rounds without such attackers, or without
    benign clients, say nothing.
    """
    found = {}
    for name, (low, high) in HARMS.items():
        areas, count = [], 0
        for table, values in zip(tables, scores, strict=True):
            harm = np.asarray(table.facts["harm"], dtype=np.float64)
            chosen = table.malicious & (harm >= low) & (harm < high)
            if chosen.any() and not table.malicious.all():
                kept = chosen | ~table.malicious
                areas.append(roc_auc_score(chosen[kept], np.asarray(values)[kept]))
                count += int(chosen.sum())
        found[name] = {"auroc": mean(areas), "malicious": count}
    return found


def evaluation(tables: Sequence[EpisodeTable], scores: Scores, threshold: float) -> dict[str, Any]:
    """Return `figures`, `deployed`, and of rounds without attackers the `clean_fpr`."""
    rate, updates = clean_rate(tables, scores, threshold)
    clean = {"clean_fpr": rate, "clean_updates": updates}
    return clean | figures(tables, scores) | deployed(tables, scores)


def tpr(
    scores: NDArray[np.float64],
    truth: NDArray[np.bool_],
    weights: NDArray[np.float64] | None = None,
    false_alarms: float = FALSE_ALARMS,
) -> float | None:
    """Return the share of the malicious above the threshold that so many benign ones exceed.

    Args:
        scores: `(updates,)`.
        truth: `(updates,)`, True where malicious.
        weights: `(updates,)` weights of the malicious, None for equal ones.
        false_alarms: Share of the benign that may exceed the threshold.

    Returns:
        None where there is no benign update, or no malicious one of positive weight.
    """
    benign = np.sort(scores[~truth])
    if not len(benign) or not truth.any():
        return None
    allowed = int(np.floor(false_alarms * len(benign) + 1e-9))
    threshold = benign[len(benign) - 1 - allowed]
    weight = np.ones(int(truth.sum())) if weights is None else weights[truth]
    if weight.sum() <= 0.0:
        return None
    return float((weight * (scores[truth] > threshold)).sum() / weight.sum())


def evidence_after(
    tables: Sequence[EpisodeTable], scores: Scores, rounds: int = ROUNDS
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return evidence and truth of every client and window of so many rounds of one kind.

    Evidence starts at nothing in each window and gathers by the rule of the judge.
    """
    history: dict[tuple[str, int], list[tuple[float, bool]]] = {}
    for table, values in zip(tables, scores, strict=True):
        for client, score, bad in zip(table.client_ids, values, table.malicious, strict=True):
            history.setdefault((table.run, int(client)), []).append((float(score), bool(bad)))
    evidence, truth = [], []
    for seen in history.values():
        for end in range(rounds, len(seen) + 1):
            window = seen[end - rounds : end]
            if len({bad for _, bad in window}) == 1:
                evidence.append(_gathered([score for score, _ in window]))
                truth.append(window[0][1])
    return np.array(evidence), np.array(truth, dtype=bool)


def clean_rate(
    tables: Sequence[EpisodeTable], scores: Scores, threshold: float
) -> tuple[float | None, int]:
    """Return the share of flagged updates in federations without attackers, and their number."""
    infected = {t.run for t in tables if any(t.facts.get("wrappers", ()))}
    clean = [s for t, s in zip(tables, scores, strict=True) if t.run not in infected]
    if not clean:
        return None, 0
    pooled = np.concatenate(clean)
    return float((pooled >= threshold).mean()), len(pooled)


def deployed(tables: Sequence[EpisodeTable], scores: Scores) -> dict[str, float | None]:
    """Return what the judge does with calibrated scores at its defaults, after five rounds.

    Shares of the malicious and of the benign clients whose evidence excludes them.
    """
    evidence, truth = evidence_after(tables, scores)
    excluded = evidence >= Policy.evidence_threshold
    return {
        "excluded_malicious": float(excluded[truth].mean()) if truth.any() else None,
        "excluded_benign": float(excluded[~truth].mean()) if (~truth).any() else None,
    }


def _gathered(scores: Sequence[float]) -> float:
    """Return the evidence after these scores, without the limits, which are for log-odds only."""
    decay = EvidenceBook().decay
    evidence = 0.0
    for score in scores:
        evidence = decay * evidence + score
    return evidence


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, None of nothing."""
    return float(np.mean(values)) if values else None
