"""Spectral Signatures: poisoned samples stand out along the direction of greatest spread."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from fl_shield.scanning.by_class import labels_of, per_class
from fl_shield.scanning.calibration import conformal_threshold
from fl_shield.scanning.protocol import (
    Held,
    Level,
    Samples,
    Scores,
    not_fitted,
    require_inputs,
    require_labels,
)
from fl_shield.scanning.reading import ModelReader


class SpectralSignatures:
    """Squared projections on the top singular vector of each class (Tran et al., NeurIPS 2018).

    Scores are those of Algorithm 1 divided by their mean over the class, so that classes compare;
    within a class the order is the paper's. The threshold comes from the clean samples, treated as
    a training set of their own. The paper instead removes a stated share: see `most_suspicious`.

    Args:
        false_alarms: Share of clean samples that may be suspected.
    """

    name: ClassVar[str] = "spectral_signatures"
    level: ClassVar[Level] = "data"

    def __init__(self, *, false_alarms: float = 0.05) -> None:
        self.false_alarms = false_alarms
        self._reader: ModelReader | None = None
        self._threshold: float | None = None

    def fit(self, held: Held) -> Self:
        """Calibrate on labelled clean samples."""
        labels = require_labels(held, self.name)
        reader = ModelReader.of(held, self.name)
        clean = Samples(require_inputs(held, self.name), labels)
        scores = _normalised(reader, clean, self.name)
        self._threshold = conformal_threshold(scores, self.false_alarms)
        self._reader = reader
        return self

    def score(self, judged: Samples) -> Scores:
        """Return the scores of a training set, `(samples,)`.

        Raises:
            ConfigurationError: if it has no labels, or one class only.
        """
        if self._reader is None:
            raise not_fitted(self.name)
        return _normalised(self._reader, judged, self.name)

    @property
    def threshold(self) -> float:
        """Score above which a sample is suspected."""
        if self._threshold is None:
            raise not_fitted(self.name)
        return self._threshold


def spectral_scores(activations: NDArray[np.float64]) -> Scores:
    """Return `⟨R(x) − mean, v⟩²` for the samples of one class (Tran et al., Algorithm 1, line 7).

    Args:
        activations: `(samples, features)`.

    Returns:
        `(samples,)`; zeros where all samples are alike.
    """
    centred = activations - activations.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    return np.asarray((centred @ directions[0]) ** 2, dtype=np.float64)


def most_suspicious(scores: Scores, labels: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Return which samples the paper removes: the top 1.5 · share of each class (line 8).

    Args:
        scores: `(samples,)`.
        labels: `(samples,)`.
        share: Upper bound ε on the share of a class that is poisoned.
    """
    removed = np.zeros(len(scores), dtype=np.bool_)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(len(members), int(1.5 * share * len(members)))
        removed[members[np.argsort(-scores[members], kind="stable")[:count]]] = True
    return removed


def _normalised(reader: ModelReader, judged: Samples, name: str) -> Scores:
    labels = labels_of(judged, name)
    activations = reader.read(judged.inputs).activations.double().numpy()

    def relative(members: NDArray[np.float64]) -> Scores:
        scores = spectral_scores(members)
        mean = scores.mean()
        return scores / mean if mean > 0 else scores

    return per_class(activations, labels, relative)
