"""Judging whole models with one scanner or several, against clean shadows of the defender's own.

With shadows, all scanners get a threshold for the same rate of false alarms, and several of them
are combined (`fl_shield.scanning.ensemble`). Without, each has the threshold of its paper and they
cannot be combined: their units differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from torch import nn

from fl_shield.errors import ConfigurationError, expected
from fl_shield.scanning.calibration import conformal_threshold
from fl_shield.scanning.ensemble import Ensemble
from fl_shield.scanning.models.mntd import Mntd
from fl_shield.scanning.models.shadows import train_shadows
from fl_shield.scanning.protocol import Held, ModelScanner, Scores
from fl_shield.scanning.registry import build_scanner

MAX_SHADOWS_OF_MNTD = 64
"""Shadows of each kind that MNTD learns from."""


@dataclass(frozen=True)
class ModelJudgement:
    """What one scanner, or the ensemble of all, says of the models.

    Attributes:
        scanner: Name of the scanner, or `"ensemble"`.
        scores: `(models,)`; higher is more suspicious.
        threshold: Score above which a model is suspected.
        calibrated: Whether the threshold is from shadows, for the asked rate of false alarms.
    """

    scanner: str
    scores: Scores
    threshold: float
    calibrated: bool

    def suspected(self) -> list[bool]:
        """Return for each model whether it is suspected."""
        return [bool(score > self.threshold) for score in self.scores]


def judge_models(
    models: Sequence[nn.Module],
    held: Held,
    scanners: Sequence[str],
    *,
    shadows: int = 19,
    false_alarms: float = 0.05,
) -> list[ModelJudgement]:
    """Return what each scanner says; the last judgement decides, that of the ensemble if any.

    Args:
        models: The suspects.
        held: What the defender holds; with an architecture, if there are to be shadows.
        scanners: Names of scanners of the level `model`.
        shadows: Clean shadow models for the thresholds; 0 for the published ones.
        false_alarms: Share of clean models that may be suspected.

    Raises:
        ConfigurationError: if a scanner is unknown or of another level, is named twice, or there
            are too few shadows for the rate.
        ModelError: if a model cannot be looked into.
    """
    if len(set(scanners)) < len(scanners) or not scanners:
        raise ConfigurationError(
            expected("scanners", "one or more, each once", ", ".join(scanners) or "none")
        )
    if shadows:  # refuse before shadows are trained, not after
        conformal_threshold(np.zeros(shadows), false_alarms, "shadow models")
    built = [_build(name, shadows, false_alarms) for name in scanners]
    # Whatever the models and samples lack is found before hours of training.
    fitted = {scanner.name: scanner.fit(held) for scanner in built}
    scores = {name: scanner.score(models) for name, scanner in fitted.items()}
    if not shadows:
        return [
            ModelJudgement(name, scores[name], scanner.threshold, name == Mntd.name)
            for name, scanner in fitted.items()
        ]
    clean = [shadow.model for shadow in train_shadows(held, shadows, 0, "audit")]
    clean_scores = {name: scanner.score(clean) for name, scanner in fitted.items()}
    judgements = [
        ModelJudgement(
            name,
            scores[name],
            conformal_threshold(clean_scores[name], false_alarms, "shadow models"),
            calibrated=True,
        )
        for name in fitted
    ]
    if len(fitted) > 1:
        ensemble = Ensemble(false_alarms=false_alarms).fit(clean_scores)
        combined = ensemble.score(scores)
        judgements.append(ModelJudgement(ensemble.name, combined, ensemble.threshold, True))
    return judgements


def _build(name: str, shadows: int, false_alarms: float) -> ModelScanner:
    """Return a scanner; MNTD calibrates itself on the shadows that all are calibrated on."""
    scanner = build_scanner(name)
    if scanner.level != "model":
        raise ConfigurationError(
            f"The scanner {name} judges samples, not models: use fl-shield filter."
        )
    if name == Mntd.name:
        # Its first clean shadows have the seeds of those of `train_shadows`: the same models.
        calibration = shadows or scanner.calibration
        return Mntd(shadows=MAX_SHADOWS_OF_MNTD, calibration=calibration, false_alarms=false_alarms)
    return cast("ModelScanner", scanner)
