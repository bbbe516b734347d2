"""The detector of samples: additive log-odds over dimension-free features, and its two files.

Features are those of the update-level detector (`fl_shield.detector.features`), an input standing
among clean samples as a client stands in its round: the robust z-score of each statistic, and its
deviation in units of what clean samples of other tasks show. With the few shadow tasks that two
cores can play, a linear detector carries over to unseen data sets better than the networks do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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

FORMAT, VERSION = "fl_shield.sample_detector", 1
WEIGHTS, CARD = "detector.safetensors", "detector.json"

CHANNELS = 2
"""Channels of the features that are read: relative and absolute; all columns are always there or
are zero."""


@dataclass(frozen=True)
class SampleDetector:
    """Log-odds `bias + Σ weight · feature` that an input is triggered.

    Attributes:
        spec: Columns and their units.
        weights: `(2 · columns,)`, relative channel first.
        bias: Log-odds of an input like the median clean one.
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

    def score(
        self, names: tuple[str, ...], reference: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the log-odds of each row among the rows of the clean samples, `(samples,)`.

        Args:
            names: Columns.
            reference: `(clean samples, descriptors)`.
            rows: `(samples, descriptors)`; one does not change the score of another.
        """
        found = [judged_features(self.spec, names, reference, row) for row in rows]
        features = np.array(found).reshape(len(rows), len(self.weights))
        return np.asarray(features @ self.weights + self.bias, dtype=np.float64)


def judged_features(
    spec: FeatureSpec,
    names: tuple[str, ...],
    reference: NDArray[np.float64],
    row: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the features of one row among those of clean samples, `(2 · columns,)`."""
    table = np.concatenate([reference, row[None]])
    return features_of(spec, names, table)[-1, : CHANNELS * len(spec.names)].astype(np.float64)


def save_sample_detector(folder: str | Path, detector: SampleDetector) -> Path:
    """Write a detector and its card and return the folder."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    arrays = {"weights": detector.weights, "bias": np.array([detector.bias])}
    content = save_arrays(arrays, {"format": FORMAT, "version": str(VERSION)})
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


def load_sample_detector(folder: str | Path) -> SampleDetector:
    """Return the detector in a folder.

    Raises:
        ConfigurationError: if the folder holds none.
        StateError: if a file is damaged, of another version, or not the card's.
    """
    source = Path(folder)
    if not (source / CARD).is_file():
        raise ConfigurationError(
            expected("detector", f"a folder with {CARD} and {WEIGHTS}", str(source))
        )
    try:
        card: Any = json.loads((source / CARD).read_bytes())
        content = (source / WEIGHTS).read_bytes()
        _check(card, content, source)
        arrays = load_arrays(content)
        spec = FeatureSpec(tuple(map(str, card["columns"])), tuple(map(float, card["units"])))
        weights = np.asarray(arrays["weights"], dtype=np.float64)
        return SampleDetector(spec, weights, float(arrays["bias"][0]), card)
    except (OSError, ValueError, KeyError, TypeError, IndexError, SafetensorError) as error:
        if isinstance(error, StateError):
            raise
        raise StateError(
            f"The detector in {source} is damaged ({error!r}). Copy it anew."
        ) from error


def _check(card: Mapping[str, Any], content: bytes, source: Path) -> None:
    if card.get("format") != FORMAT:
        raise StateError(f"{source / CARD} is no detector of samples.")
    if card.get("version") != VERSION:
        raise StateError(
            f"{source / CARD} has version {card.get('version')}; this fl_shield reads {VERSION}."
        )
    if hashlib.sha256(content).hexdigest() != card["sha256"]:
        raise StateError(
            f"{source / WEIGHTS} does not belong to {CARD}: its SHA-256 is not that of the card. "
            "Copy both files of a detector together."
        )
