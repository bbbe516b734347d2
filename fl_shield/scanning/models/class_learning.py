"""Learning the detector of target classes from shadow models of other tasks.

Every class of a shadow is an example, honest but for the targets of backdoors; targets weigh as
much as all honest classes together. The detector is one that does well on data sets that it has not
seen: its threshold comes from detectors that were learned without the data set that they judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fl_shield.detector.features import fit_features
from fl_shield.errors import ConfigurationError, expected
from fl_shield.scanning.calibration import conformal_threshold, with_room
from fl_shield.scanning.models.class_detector import ClassDetector, class_features

FIT = 0.1
"""Weight of the mean loss, times `EXAMPLES`, against half of the squared weights."""

EXAMPLES = 100.0

FALSE_ALARMS = 0.05
"""Share of clean models of unseen data sets that score above 0."""


@dataclass(frozen=True)
class ClassTable:
    """What is known of a shadow model.

    Attributes:
        group: Its data set; forms of one data set count as one.
        names: Columns.
        raw: `(classes, columns)` descriptors.
        target: The target class of its backdoor, None without one.
    """

    group: str
    names: tuple[str, ...]
    raw: NDArray[np.float64]
    target: int | None = None

    @property
    def malicious(self) -> NDArray[np.bool_]:
        """`(classes,)` truth."""
        target = -1 if self.target is None else self.target
        return np.asarray(np.arange(len(self.raw)) == target, dtype=np.bool_)


def learn(tables: Sequence[ClassTable]) -> ClassDetector:
    """Return a detector learned from shadow models.

    Raises:
        ConfigurationError: if there is no model with a backdoor.
    """
    from sklearn.linear_model import LogisticRegression

    truth = np.concatenate([table.malicious for table in tables]) if tables else np.zeros(0, bool)
    if not truth.any() or truth.all():
        raise ConfigurationError(
            expected("tables", "shadows with and without a backdoor", f"{int(truth.sum())} with")
        )
    spec = fit_features(tables)
    features = np.concatenate([class_features(spec, t.names, t.raw) for t in tables])
    mean, spread = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-9)
    weight = np.where(truth, 0.5 / truth.sum(), 0.5 / (~truth).sum())
    model = LogisticRegression(C=FIT, max_iter=5000)
    model.fit((features - mean) / spread, truth, sample_weight=EXAMPLES * weight)
    weights = np.asarray(model.coef_[0] / spread, dtype=np.float64)
    return ClassDetector(spec, weights, float(model.intercept_[0] - mean @ weights))


def unseen_scores(tables: Sequence[ClassTable]) -> dict[str, tuple[list[float], list[bool]]]:
    """Return score and truth of each model by data set, from detectors that have not seen it.

    Raises:
        ConfigurationError: if there is one data set only.
    """
    groups = sorted({table.group for table in tables})
    if len(groups) < 2:
        raise ConfigurationError(expected("tables", "shadows of two data sets or more", groups))
    found = {}
    for group in groups:
        detector = learn([t for t in tables if t.group != group])
        judged = [t for t in tables if t.group == group]
        scores = [float(detector.score(t.names, t.raw).max()) for t in judged]
        found[group] = (scores, [t.target is not None for t in judged])
    return found


def with_threshold(
    detector: ClassDetector, unseen: dict[str, tuple[list[float], list[bool]]]
) -> ClassDetector:
    """Return the detector with its bias moved so that 0 is the threshold.

    It is the split-conformal quantile of clean models; where backdoored ones leave room above it,
    it is halfway to the same quantile of theirs: data sets differ.
    """
    scores = np.array([score for found, _ in unseen.values() for score in found])
    truth = np.array([flag for _, flags in unseen.values() for flag in flags])
    low = conformal_threshold(scores[~truth], FALSE_ALARMS, "shadow models")
    limit = with_room(low, scores[truth], FALSE_ALARMS)
    return replace(detector, bias=detector.bias - limit)
