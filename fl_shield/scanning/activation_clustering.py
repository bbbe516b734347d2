"""Activation Clustering: poisoned and clean samples of a class fall into two clusters."""

from __future__ import annotations

import warnings
from typing import ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from fl_shield.errors import expected, raise_all, unknown
from fl_shield.scanning.by_class import Floats, labels_of, per_class
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

Reduction = Literal["pca", "ica"]

MIN_MEMBERS = 4
"""A class with fewer samples is not clustered."""


class ActivationClustering:
    """Two clusters of each class's activations (Chen et al., SafeAI 2019).

    A sample of the smaller cluster scores the silhouette of its class's two clusters: high where
    they are well apart, which the paper takes for poisoning (section 4.4). All others score 0, and
    so do all of a class whose smaller cluster has more than `largest_share` of the samples.

    Args:
        reduction: `"ica"` (as in the paper) or `"pca"`.
        dimensions: Dimensions to reduce to.
        largest_share: Largest share of its class that a poisoned cluster may have; 0.35 as in ART.
        false_alarms: Share of clean samples that may be suspected.

    Raises:
        ConfigurationError: if a setting is impossible.
    """

    name: ClassVar[str] = "activation_clustering"
    level: ClassVar[Level] = "data"

    def __init__(
        self,
        *,
        reduction: Reduction = "ica",
        dimensions: int = 10,
        largest_share: float = 0.35,
        false_alarms: float = 0.05,
    ) -> None:
        problems = []
        if reduction not in get_args(Reduction):
            problems.append(unknown("scanner.reduction", reduction, get_args(Reduction)))
        if dimensions < 1:
            problems.append(expected("scanner.dimensions", "1 or more", dimensions))
        if not 0 < largest_share <= 0.5:
            problems.append(
                expected("scanner.largest_share", "above 0 and at most 0.5", largest_share)
            )
        raise_all(problems)
        self.reduction: Reduction = reduction
        self.dimensions, self.largest_share = dimensions, largest_share
        self.false_alarms = false_alarms
        self._fitted: tuple[ModelReader, int] | None = None
        self._threshold: float | None = None

    def fit(self, held: Held) -> Self:
        """Calibrate on labelled clean samples, treated as a training set of their own."""
        labels = require_labels(held, self.name)
        self._fitted = (ModelReader.of(held, self.name), held.seed)
        scores = self.score(Samples(require_inputs(held, self.name), labels))
        self._threshold = conformal_threshold(scores, self.false_alarms)
        return self

    def score(self, judged: Samples) -> Scores:
        """Return the scores of a training set, `(samples,)` in [0, 1].

        Raises:
            ConfigurationError: if it has no labels, or one class only.
        """
        if self._fitted is None:
            raise not_fitted(self.name)
        reader, seed = self._fitted
        labels = labels_of(judged, self.name)
        activations = reader.read(judged.inputs).activations.double().numpy()
        return per_class(activations, labels, lambda members: self._judge(members, seed))

    @property
    def threshold(self) -> float:
        """Score above which a sample is suspected."""
        if self._threshold is None:
            raise not_fitted(self.name)
        return self._threshold

    def _judge(self, activations: Floats, seed: int) -> Scores:
        from sklearn.metrics import silhouette_score

        scores = np.zeros(len(activations))
        if len(activations) < MIN_MEMBERS:
            return scores
        reduced = reduce(activations, self.reduction, self.dimensions, seed)
        second = two_clusters(reduced, seed)
        if not 0 < second.sum() <= self.largest_share * len(second):
            return scores
        scores[second] = max(0.0, float(silhouette_score(reduced, second)))
        return scores


def reduce(activations: Floats, reduction: Reduction, dimensions: int, seed: int = 0) -> Floats:
    """Return `(samples, dimensions)`; fewer where the activations do not span as many."""
    from sklearn.decomposition import PCA, FastICA

    rank = int(np.linalg.matrix_rank(activations - activations.mean(axis=0)))
    wanted = min(dimensions, rank, len(activations) - 1)
    if wanted < 1:
        return np.zeros((len(activations), 1))
    if reduction == "pca":
        method = PCA(n_components=wanted, random_state=seed)
    else:
        method = FastICA(n_components=wanted, max_iter=1000, tol=0.005, random_state=seed)
    with warnings.catch_warnings():  # an ICA that has not quite converged serves as well
        warnings.simplefilter("ignore")
        return np.asarray(method.fit_transform(activations), dtype=np.float64)


def two_clusters(points: Floats, seed: int = 0) -> NDArray[np.bool_]:
    """Return which samples lie in the smaller of two k-means clusters, `(samples,)`."""
    from sklearn.cluster import KMeans

    if len(np.unique(points, axis=0)) < 2:
        return np.zeros(len(points), dtype=np.bool_)
    assigned = KMeans(n_clusters=2, n_init=10, random_state=seed).fit_predict(points)
    return np.asarray(assigned == int(assigned.mean() < 0.5), dtype=np.bool_)
