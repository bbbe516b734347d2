"""The detector of target classes: additive log-odds over features without dimension, and its files.

A class stands among the other classes of its model as a client stands in its round, so that the
features are those of the update-level detector (`fl_shield.detector.features`): the robust z-score
of each column and its deviation in units of what honest classes of other tasks show. With few
classes there is little to compare with, and a third channel counts: the value itself, in the same
units. A model is as suspicious as its most suspicious class.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from fl_shield.detector.features import FeatureSpec, features_of
from fl_shield.errors import ConfigurationError, StateError, expected

FORMAT, VERSION = "fl_shield.class_detector", 1
WEIGHTS, CARD = "classes.safetensors", "classes.json"

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
    compared = features_of(spec, names, table)[:, : 2 * len(spec.names)].astype(np.float64)
    place = {name: column for column, name in enumerate(names)}
    values = np.zeros((len(table), len(spec.names)))
    for column, (name, unit) in enumerate(zip(spec.names, spec.units, strict=True)):
        if name in place:
            values[:, column] = np.clip(np.nan_to_num(table[:, place[name]] / unit), -CLIP, CLIP)
    return np.concatenate([compared, values], axis=1)


def save_class_detector(folder: str | Path, detector: ClassDetector) -> Path:
    """Write a detector and its card and return the folder."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    arrays = {"weights": detector.weights, "bias": np.array([detector.bias])}
    # One entry: several come in any order, and the same weights would have other digests.
    content = save_arrays(arrays, {"format": FORMAT})
    card = {
        **detector.card,
        "format": FORMAT,
        "version": VERSION,
        "sha256": hashlib.sha256(content).hexdigest(),
        "columns": list(detector.spec.names),
        "units": list(detector.spec.units),
    }
    (target / WEIGHTS).write_bytes(content)
    text = json.dumps(card, indent=1, allow_nan=False) + "\n"
    (target / CARD).write_text(text, encoding="utf-8")
    return target


def load_class_detector(folder: str | Path) -> ClassDetector:
    """Return the detector in a folder.

    Raises:
        ConfigurationError: if the folder holds none.
        StateError: if a file is damaged, of another version, or not the card's.
    """
    source = Path(folder)
    if not (source / CARD).is_file():
        raise ConfigurationError(
            expected("weights", f"a folder with {CARD} and {WEIGHTS}", str(source))
        )
    try:
        card: Any = json.loads((source / CARD).read_bytes())
        content = (source / WEIGHTS).read_bytes()
        _check(card, content, source)
        arrays = load_arrays(content)
        spec = FeatureSpec(tuple(map(str, card["columns"])), tuple(map(float, card["units"])))
        weights = np.asarray(arrays["weights"], dtype=np.float64)
        return ClassDetector(spec, weights, float(arrays["bias"][0]), card)
    except (OSError, ValueError, KeyError, TypeError, IndexError, SafetensorError) as error:
        if isinstance(error, StateError):
            raise
        raise StateError(
            f"The detector in {source} is damaged ({error!r}). Copy it anew."
        ) from error


def _check(card: Mapping[str, Any], content: bytes, source: Path) -> None:
    if card.get("format") != FORMAT:
        raise StateError(f"{source / CARD} is no detector of target classes.")
    if card.get("version") != VERSION:
        raise StateError(
            f"{source / CARD} has version {card.get('version')}; this fl_shield reads {VERSION}."
        )
    if hashlib.sha256(content).hexdigest() != card["sha256"]:
        raise StateError(
            f"{source / WEIGHTS} does not belong to {CARD}: its SHA-256 is not that of the card. "
            "Copy both files of a detector together."
        )
