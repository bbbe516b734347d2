"""The threshold of a detector, for data sets that it has never seen, and what its log-odds mean.

Honest updates of the training data sets score lower than honest updates of a new one may: the
networks have seen them, or others like them. So each data set is scored by networks that were
trained on the others, and has a split-conformal quantile of its own. The highest but one is taken:
a new data set may be harder than most, but one odd federation of one data set does not decide for
all others, on which its threshold would let pass most attackers.

Nor are log-odds on a new data set what they were on those of the training: they lie too low, or
too high, by an amount that the same scores show. Platt scaling puts that right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from fl_shield.descriptors.table import DescriptorTable
from fl_shield.detector.meta_detector import Calibration, MetaDetector
from fl_shield.errors import ConfigurationError, expected
from fl_shield.meta.settings import MetaTraining
from fl_shield.meta.training import train_detector
from fl_shield.metrics.detection import auroc
from fl_shield.shadow.table import EpisodeTable

PENALTY = 1e3
"""Inverse strength of the penalty on the slope: hardly any, but a slope for separable scores."""

ENOUGH = 4
"""Data sets from which on the one that would give the highest threshold is passed over."""

Scored = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""A round: log-odds of its clients, and which are malicious; `(clients,)` each."""


def calibrate_across(
    tables: Sequence[EpisodeTable], settings: MetaTraining, false_alarms: float = 0.01
) -> Calibration:
    """Return the calibration of a detector trained on `tables` with `settings`.

    Args and errors are those of `judge_unseen`.
    """
    return judge_unseen(tables, settings, false_alarms)[0]


def judge_unseen(
    tables: Sequence[EpisodeTable], settings: MetaTraining, false_alarms: float = 0.01
) -> tuple[Calibration, dict[str, float | None]]:
    """Return the calibration, and how well each data set is judged by networks without it.

    Args:
        tables: Training rounds of two data sets or more.
        settings: How the detector is trained; every fold is trained alike.
        false_alarms: Share of honest updates that may be flagged.

    Returns:
        The calibration of a detector that is trained on all of `tables`, and `mean_auroc` by data
        set.

    Raises:
        ConfigurationError: if there is one data set only, or too few honest updates.
    """

    def without(domain: str) -> MetaDetector:
        others = [table for table in tables if table.domain != domain]
        return MetaDetector(*train_detector(others, settings))

    found = unseen_log_odds(tables, without)
    aurocs = {domain: mean_auroc(rounds) for domain, rounds in found.items()}
    return cautious(found, false_alarms), aurocs


def cautious(rounds_by_domain: Mapping[str, Sequence[Scored]], false_alarms: float) -> Calibration:
    """Return the calibration of the data set whose honest updates look most suspicious but one.

    Of fewer than `ENOUGH` data sets it is that of the most suspicious. What log-odds mean is
    learned from all data sets together.

    Args:
        rounds_by_domain: From `unseen_log_odds`.
        false_alarms: Share of honest updates that may be flagged.

    Raises:
        ConfigurationError: if a data set has too few honest updates for that rate.
    """
    slope, even = platt_scaling(rounds_by_domain)
    found = [
        Calibration.from_benign(
            np.concatenate([odds[~malicious] for odds, malicious in rounds]),
            false_alarms, 1.0 / slope, even,
        )
        for rounds in rounds_by_domain.values()
    ]  # fmt: skip
    strict, *others = sorted(found, key=lambda calibration: -calibration.offset)
    return others[0] if len(found) >= ENOUGH else strict


def platt_scaling(rounds_by_domain: Mapping[str, Sequence[Scored]]) -> tuple[float, float]:
    """Return the slope and the even point of log-odds that are right on unseen data sets.

    A client of log-odds s is malicious with odds of exp(slope · (s − even)) to 1: logistic
    regression (Platt, *Probabilistic outputs for support vector machines*, 1999, section 2), in
    which every data set, the rounds of it that have clients of both kinds, and in these the two
    kinds, weigh the same. (1, 0), the log-odds as they are, where there is no such round or
    malicious clients do not score higher.

    Args:
        rounds_by_domain: From `unseen_log_odds`.
    """
    odds, truth, weights = [], [], []
    for rounds in rounds_by_domain.values():
        both = [(s, bad) for s, bad in rounds if 0 < bad.sum() < len(bad)]
        for values, bad in both:
            odds.append(values)
            truth.append(bad)
            weights.append(np.where(bad, 1.0 / bad.sum(), 1.0 / (~bad).sum()) / len(both))
    if not odds:
        return 1.0, 0.0
    fitted = LogisticRegression(C=PENALTY).fit(
        np.concatenate(odds)[:, None], np.concatenate(truth), np.concatenate(weights)
    )
    slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return (slope, -intercept / slope) if slope > 0.0 else (1.0, 0.0)


def unseen_log_odds(
    tables: Sequence[EpisodeTable], without: Callable[[str], MetaDetector]
) -> dict[str, list[Scored]]:
    """Return the log-odds of every round by data set, under detectors that never saw it.

    Args:
        tables: Rounds of two data sets or more.
        without: Returns an uncalibrated detector that was not trained on a data set.

    Raises:
        ConfigurationError: if there is one data set only.
    """
    domains = sorted({table.domain for table in tables})
    if len(domains) < 2:
        raise ConfigurationError(
            expected("tables", "rounds of two data sets or more, to calibrate across", domains)
        )
    found = {}
    for domain in domains:
        detector = without(domain)
        own = [table for table in tables if table.domain == domain]
        found[domain] = [(log_odds(detector, table), table.malicious) for table in own]
    return found


def mean_auroc(rounds: Sequence[Scored]) -> float | None:
    """Return the mean, over rounds with attackers, of the area under the ROC curve in the round.

    A number in [0, 1]; None if no round has clients of both kinds.
    """
    found = [auroc(odds.tolist(), malicious.tolist()) for odds, malicious in rounds]
    known = [area for area in found if area is not None]
    return sum(known) / len(known) if known else None


def log_odds(detector: MetaDetector, table: EpisodeTable) -> NDArray[np.float64]:
    """Return the scores of a round's clients, log-odds where the detector is not calibrated."""
    return detector.score(DescriptorTable(table.names, table.raw, table.raw))
