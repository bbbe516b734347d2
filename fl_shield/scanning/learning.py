"""Learning the detector of samples from shadow tasks, and the thresholds that go with it.

The objective is that of the MetaShield proposal, section 2.2: one detector that does well on all
tasks of all domains. Every data set weighs the same, and in it the clean inputs as much as the
triggered ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_shield.detector.features import fit_features
from fl_shield.errors import ConfigurationError, expected
from fl_shield.scanning.calibration import conformal_threshold, with_room
from fl_shield.scanning.meta_shield import LIMITS
from fl_shield.scanning.sample_detector import SampleDetector, judged_features, radial
from fl_shield.shadow.table import EpisodeTable

FIT = 0.3
"""Weight of the mean loss against that of a small norm; this and the next one were chosen on shadow
tasks, by data sets that were left out."""

LINEAR = 3.0
"""Weight of the linear part of the kernel beside the radial one: what was learned from Jumbo
triggers carries over to others by the linear part above all."""

RATES = (0.01, 0.02, 0.05, 0.1)
"""Rates of false alarms that a card has thresholds for."""

MARGIN = 0.6
"""Thresholds keep to this share of a rate on shadow tasks: a data set that is new differs from them
by more than chance."""

Without = Callable[[Sequence[str]], SampleDetector]
"""Returns a detector that has seen none of these data sets."""


def learn(tables: Sequence[EpisodeTable], fit: float = FIT) -> SampleDetector:
    """Return a detector learned from the tables of shadow tasks.

    A support vector machine (Cortes and Vapnik, 1995). The radial part of its kernel sees that
    faint signs count where they come together; the linear part goes on where an input is further
    off than any of the shadow tasks.

    Args:
        tables: Rounds of one judged input each, the last row.
        fit: Weight of the loss against that of a small norm.

    Raises:
        ConfigurationError: if there are no triggered inputs, or no clean ones.
    """
    from sklearn.svm import SVC

    truth = np.array([bool(table.malicious[-1]) for table in tables])
    if not truth.any() or truth.all():
        raise ConfigurationError(
            expected("tables", "clean and triggered inputs", f"{int(truth.sum())} triggered ones")
        )
    spec = fit_features(tables)
    features = np.array([judged_features(spec, t.names, t.raw[:-1], t.raw[-1]) for t in tables])
    groups = [(table.domain, bool(kind)) for table, kind in zip(tables, truth, strict=True)]
    sizes = Counter(groups)
    weight = np.array([1.0 / sizes[group] for group in groups])
    reach = 1.0 / max(float(features.var()) * features.shape[1], 1e-9)
    similarity = radial(features, features, reach) + LINEAR * reach * features @ features.T
    model = SVC(C=fit, kernel="precomputed")
    model.fit(similarity, truth, sample_weight=weight * len(weight) / weight.sum())
    support, pull = features[model.support_], model.dual_coef_[0]
    plain = SampleDetector(
        spec, LINEAR * reach * pull @ support, float(model.intercept_[0]), support, pull, reach
    )
    first = {table.run: table for table in tables}.values()
    variance = [plain.clean_scores(t.names, t.raw[:-1]).var() for t in first]
    return replace(plain, spread=max(float(np.sqrt(np.mean(variance))), 1e-6))


def judged_scores(
    detector: SampleDetector, tables: Sequence[EpisodeTable]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return score and truth of the judged input of each table."""
    scores = np.zeros(len(tables))
    for run in {table.run for table in tables}:  # all rounds of a task have the same clean samples
        rows = [k for k, table in enumerate(tables) if table.run == run]
        names, reference = tables[rows[0]].names, tables[rows[0]].raw[:-1]
        scores[rows] = detector.score(names, reference, np.array([tables[k].raw[-1] for k in rows]))
    return scores, np.array([bool(t.malicious[-1]) for t in tables])


Judged = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Scores and truth of judged inputs."""


def unseen_scores(
    tables: Sequence[EpisodeTable], without: Without, held_out: Sequence[str] = ()
) -> dict[str, Judged]:
    """Return the scores by data set, from detectors that have not seen it.

    Args:
        tables: Tables of two data sets or more, besides those held out.
        without: Learns, or finds, a detector.
        held_out: Data sets that must not be looked at.

    Raises:
        ConfigurationError: if there is one data set only.
    """
    domains = sorted({table.domain for table in tables} - set(held_out))
    if len(domains) < 2:
        raise ConfigurationError(
            expected("tables", "shadow tasks of two data sets or more", domains)
        )
    return {
        name: judged_scores(without([*held_out, name]), [t for t in tables if t.domain == name])
        for name in domains
    }


def limits_of(judged: Mapping[str, Judged]) -> dict[str, float]:
    """Return the thresholds of a card: rate of false alarms to threshold.

    At least the split-conformal quantile of the clean inputs, at `MARGIN` times the rate. Where the
    triggered ones lie above it but for the rate, it is halfway to them: data sets differ, and there
    is room.

    A data set counts as much as any other: each is thinned to the size of the smallest.
    """
    clean = _together([scores[~truth] for scores, truth in judged.values()])
    triggered = _together([scores[truth] for scores, truth in judged.values() if truth.any()])
    limits = {}
    for rate in RATES:
        if (len(clean) + 1) * MARGIN * rate >= 1.0:
            limit = conformal_threshold(clean, MARGIN * rate)
            limits[f"{rate:g}"] = with_room(limit, triggered, rate)
    return limits


def _together(scores: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    if not scores:
        return np.zeros(0)
    size = min(map(len, scores))
    return np.concatenate([np.sort(s)[_evenly(len(s), size)] for s in scores])


def with_card(
    detector: SampleDetector,
    limits: Mapping[str, float],
    tables: Sequence[EpisodeTable],
    facts: Mapping[str, Any] | None = None,
) -> SampleDetector:
    """Return the detector with a card: its thresholds, and what it was learned from."""
    runs = {table.run: table for table in tables}

    def count(values: Sequence[object]) -> dict[str, int]:
        return dict(sorted(Counter(map(str, values)).items()))

    card = {
        "name": "meta-learned detector of samples",
        LIMITS: dict(limits),
        "shadow_models": count([t.domain for t in runs.values()]),
        "architectures": count([t.facts["architecture"] for t in runs.values()]),
        "triggers": sorted({str(t.facts["trigger"]) for t in runs.values()}),
        "judged_inputs": len(tables),
        "clean_samples": sorted({int(t.facts["clean_samples"]) for t in tables}),
        **(facts or {}),
    }
    return replace(detector, card=card)


def _evenly(count: int, wanted: int) -> NDArray[np.int64]:
    return np.asarray(np.linspace(0, count - 1, wanted).round(), dtype=np.int64)
