"""Meta-training of the detector of samples, and the thresholds that go with it.

The outer loops are those of `fl_shield.meta.algorithms`; a task of theirs is a shadow model here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_shield.detector.meta_detector import MetaDetector
from fl_shield.detector.store import save_detector
from fl_shield.errors import ConfigurationError, expected
from fl_shield.meta.settings import MetaTraining
from fl_shield.meta.training import train_detector
from fl_shield.scanning.calibration import conformal_threshold
from fl_shield.scanning.meta_shield import LIMITS, score_rows
from fl_shield.shadow.table import EpisodeTable

SETTINGS = MetaTraining(networks=2, steps=400, rounds=32, hidden=32, learning_rate=4e-3)

RATES = (0.01, 0.02, 0.05, 0.1)
"""Rates of false alarms that a card has thresholds for."""

Without = Callable[[Sequence[str]], MetaDetector]
"""Returns a detector that has seen none of these data sets."""


def learn(tables: Sequence[EpisodeTable], settings: MetaTraining = SETTINGS) -> MetaDetector:
    """Return a detector trained on the tables of shadow tasks.

    Raises:
        ConfigurationError: if no shadow model among them has a backdoor.
    """
    return MetaDetector(*train_detector(tables, settings))


def judged_scores(
    detector: MetaDetector, tables: Sequence[EpisodeTable]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return score and truth of the judged input of each table."""
    scores = [score_rows(detector, t.names, t.raw[:-1], t.raw[-1:])[0] for t in tables]
    return np.array(scores), np.array([bool(t.malicious[-1]) for t in tables])


def clean_scores(
    tables: Sequence[EpisodeTable], without: Without, held_out: Sequence[str] = ()
) -> dict[str, NDArray[np.float64]]:
    """Return the scores of clean inputs by data set, from detectors that have not seen it.

    Args:
        tables: Tables of two data sets or more, besides those held out.
        without: Trains, or finds, a detector.
        held_out: Data sets that must not be looked at.

    Raises:
        ConfigurationError: if there is one data set only.
    """
    domains = sorted({table.domain for table in tables} - set(held_out))
    if len(domains) < 2:
        raise ConfigurationError(
            expected("tables", "shadow tasks of two data sets or more", domains)
        )
    found = {}
    for domain in domains:
        scores, malicious = judged_scores(
            without([*held_out, domain]), [t for t in tables if t.domain == domain]
        )
        found[domain] = scores[~malicious]
    return found


def limits_of(scores: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return the thresholds of a card: rate of false alarms to threshold.

    A data set counts as much as any other: the quantile is that of their scores together, each
    thinned to the size of the smallest.
    """
    size = min(map(len, scores.values()))
    together = np.concatenate([np.sort(s)[_evenly(len(s), size)] for s in scores.values()])
    return {
        f"{rate:g}": conformal_threshold(together, rate)
        for rate in RATES
        if (len(together) + 1) * rate >= 1.0
    }


def save_sample_detector(
    folder: str | Path,
    detector: MetaDetector,
    limits: Mapping[str, float],
    tables: Sequence[EpisodeTable],
    settings: MetaTraining,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write a detector with its card and return the folder."""
    runs = {table.run: table for table in tables}
    card = {
        "name": "meta-learned detector of samples",
        LIMITS: dict(limits),
        "shadow_models": dict(sorted(Counter(t.domain for t in runs.values()).items())),
        "architectures": dict(
            sorted(Counter(str(t.facts["architecture"]) for t in runs.values()).items())
        ),
        "triggers": sorted({str(t.facts["trigger"]) for t in runs.values()}),
        "judged_inputs": len(tables),
        "clean_samples": sorted({int(t.facts["clean_samples"]) for t in tables}),
        "training": asdict(settings),
        **(facts or {}),
    }
    return save_detector(folder, detector.networks, detector.spec, card)


def _evenly(count: int, wanted: int) -> NDArray[np.int64]:
    return np.asarray(np.linspace(0, count - 1, wanted).round(), dtype=np.int64)
