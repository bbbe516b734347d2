"""The detector of samples: a support vector machine over dimension-free features; its two files.

Features are those of the update-level detector (`fl_shield.detector.features`), an input standing
among clean samples as a client stands in its round: the robust z-score of each statistic, and its
deviation in units of what clean samples of other tasks show. With the few shadow tasks that two
cores can play, it carries over to unseen data sets better than the networks do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from fl_shield.detector.features import FeatureSpec, deviations_of
from fl_shield.errors import ConfigurationError, expected
from fl_shield.scanning.detector_files import Arrays, DetectorFiles

CARD = "detector.json"
FILES = DetectorFiles("samples", "fl_shield.sample_detector", 2, "detector.safetensors", CARD)

CHANNELS = 2
"""Channels of the features that are read: relative and absolute; all columns are always there or
are zero."""


@dataclass(frozen=True)
class SampleDetector:
    """Scores `bias + w·x + Σ pull · exp(−reach · ‖x − support‖²)` of features `x`.

    The score of an input is told in units of the clean samples: their mean score, each held against
    the others, is 0, and 1 is the root of the mean of their variance and `spread²`, that of other
    tasks, as a handful of samples do not tell a spread well.

    Attributes:
        spec: Columns and their units.
        weights: `w`, `(2 · columns,)`, relative channel first.
        bias: Score of an input like the median clean one, but for the sum.
        support: `(n, 2 · columns)` features of inputs of shadow tasks; may be none.
        pull: `(n,)` how much each draws to its own kind, triggered ones above 0.
        reach: Inverse squared distance at which it does.
        spread: Spread of the plain scores of clean samples on other tasks.
        card: What is known of the training, JSON-ready.
    """

    spec: FeatureSpec
    weights: NDArray[np.float64]
    bias: float
    support: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    pull: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    reach: float = 1.0
    spread: float = 1.0
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that weights, support and columns fit."""
        width = CHANNELS * len(self.spec.names)
        single = np.array([self.bias, self.reach, self.spread])
        values = np.concatenate([self.weights.ravel(), single, self.support.ravel(), self.pull])
        if self.weights.shape != (width,) or not np.isfinite(values).all():
            raise ConfigurationError(
                expected("weights", f"finite, of shape {(width,)}", self.weights.shape)
            )
        if len(self.pull) and self.support.shape != (len(self.pull), width):
            raise ConfigurationError(
                expected("support", f"of shape {(len(self.pull), width)}", self.support.shape)
            )

    def score(
        self, names: tuple[str, ...], reference: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the score of each row among the rows of the clean samples, `(samples,)`.

        Args:
            names: Columns.
            reference: `(clean samples, descriptors)`.
            rows: `(samples, descriptors)`; one does not change the score of another.
        """
        clean = self.clean_scores(names, reference)
        unit = np.sqrt((clean.var() + self.spread**2) / 2.0)
        found = (self.plain_scores(names, reference, rows) - clean.mean()) / unit
        return np.asarray(found, dtype=np.float64)

    def clean_scores(
        self, names: tuple[str, ...], reference: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the plain score of each clean sample among the others, `(clean samples,)`."""
        found = []
        for row in range(len(reference)):
            others = np.delete(reference, row, axis=0)
            found.append(self.plain_scores(names, others, reference[row : row + 1]))
        return np.concatenate(found)

    def plain_scores(
        self, names: tuple[str, ...], reference: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the scores in units of the formula, arguments as of `score`."""
        found = [judged_features(self.spec, names, reference, row) for row in rows]
        features = np.array(found).reshape(len(rows), len(self.weights))
        scores = features @ self.weights + self.bias
        if len(self.pull):
            scores = scores + radial(features, self.support, self.reach) @ self.pull
        return np.asarray(scores, dtype=np.float64)


def radial(
    features: NDArray[np.float64], support: NDArray[np.float64], reach: float
) -> NDArray[np.float64]:
    """Return `exp(−reach · ‖x − s‖²)` for each `x` of `(n, d)` and `s` of `(m, d)`, `(n, m)`."""
    apart = cdist(features, support, "sqeuclidean")
    return np.asarray(np.exp(-reach * apart), dtype=np.float64)


def judged_features(
    spec: FeatureSpec,
    names: tuple[str, ...],
    reference: NDArray[np.float64],
    row: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the features of one row among those of clean samples, `(2 · columns,)`."""
    table = np.concatenate([reference, row[None]])
    return np.asarray(deviations_of(spec, names, table)[-1], dtype=np.float64)


def save_sample_detector(folder: str | Path, detector: SampleDetector) -> Path:
    """Write a detector and its card and return the folder."""
    arrays = {
        "weights": detector.weights, "bias": np.array([detector.bias]),
        "support": detector.support, "pull": detector.pull,
        "reach": np.array([detector.reach]), "spread": np.array([detector.spread]),
    }  # fmt: skip
    return FILES.write(folder, arrays, detector.spec, detector.card)


def load_sample_detector(folder: str | Path) -> SampleDetector:
    """Return the detector in a folder.

    Raises:
        ConfigurationError: if the folder holds none.
        StateError: if a file is damaged, of another version, or not the card's.
    """
    return FILES.read(folder, _built)


def _built(arrays: Arrays, spec: FeatureSpec, card: dict[str, Any]) -> SampleDetector:
    bias, reach, spread = (float(arrays[name][0]) for name in ("bias", "reach", "spread"))
    return SampleDetector(
        spec, arrays["weights"], bias, arrays["support"], arrays["pull"], reach, spread, card
    )
