"""The detector of target classes: additive log-odds over features without dimension, and its files.

A class stands among the other classes of its model as a client stands in its round, so that the
features are those of the update-level detector (`fl_shield.detector.features`): the robust z-score
of each column and its deviation in units of what honest classes of other tasks show. With few
classes there is little to compare with, and a third channel counts: the value itself, in the same
units. A model is as suspicious as its most suspicious class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_shield.detector.features import FeatureSpec, deviations_of
from fl_shield.errors import ConfigurationError, expected
from fl_shield.scanning.detector_files import DetectorFiles

FILES = DetectorFiles(
    "target classes", "fl_shield.class_detector", 1, "classes.safetensors", "classes.json"
)

CHANNELS = 3
"""Channels of the features: relative, absolute, value."""

CLIP = 1e3
"""Values in units are limited to this size."""


@dataclass(frozen=True)
class ClassDetector:
    """Log-odds `bias + Σ weight · feature` that a class is the target of a backdoor.

    Attributes:
        spec: Columns and their units.
        weights: `(3 · columns,)`, relative channel first.
        bias: What is added to them.
        card: What is known of the training, JSON-ready.
    """

    spec: FeatureSpec
    weights: NDArray[np.float64]
    bias: float
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that weights and columns fit."""
        wanted = (CHANNELS * len(self.spec.names),)
        if self.weights.shape != wanted or not np.isfinite([*self.weights, self.bias]).all():
            raise ConfigurationError(
                expected("weights", f"finite, of shape {wanted}", self.weights.shape)
            )

    def score(self, names: Sequence[str], table: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log-odds of each class of a model, `(classes,)`.

        Args:
            names: Columns.
            table: `(classes, columns)` of the model (`describe_classes`).
        """
        features = class_features(self.spec, names, table)
        return np.asarray(features @ self.weights + self.bias, dtype=np.float64)


def class_features(
    spec: FeatureSpec, names: Sequence[str], table: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the features of all classes of a model, `(classes, 3 · columns)`; finite."""
    compared = deviations_of(spec, names, table).astype(np.float64)
    place = {name: column for column, name in enumerate(names)}
    values = np.zeros((len(table), len(spec.names)))
    for column, (name, unit) in enumerate(zip(spec.names, spec.units, strict=True)):
        if name in place:
            values[:, column] = np.clip(np.nan_to_num(table[:, place[name]] / unit), -CLIP, CLIP)
    return np.concatenate([compared, values], axis=1)


def save_class_detector(folder: str | Path, detector: ClassDetector) -> Path:
    """Write a detector and its card and return the folder."""
    arrays = {"weights": detector.weights, "bias": np.array([detector.bias])}
    return FILES.write(folder, arrays, detector.spec, detector.card)


def load_class_detector(folder: str | Path) -> ClassDetector:
    """Return the detector in a folder.

    Raises:
        ConfigurationError: if the folder holds none.
        StateError: if a file is damaged, of another version, or not the card's.
    """
    return FILES.read(
        folder,
        lambda arrays, spec, card: ClassDetector(
            spec, arrays["weights"], float(arrays["bias"][0]), card
        ),
    )
