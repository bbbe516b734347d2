"""What the scanners of models have in common: copies to work on, and where the threshold is from.

A scanner that comes from a paper has the threshold of the paper. It was chosen for other models and
other settings than yours: with `shadows=N` the scanner trains N clean models like the suspect and
takes the conformal quantile of their scores instead.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from torch import Tensor, nn

from fl_shield.errors import ConfigurationError, ModelError, expected
from fl_shield.scanning.calibration import conformal_threshold
from fl_shield.scanning.models.shadows import train_shadows
from fl_shield.scanning.protocol import Held, Level, Scores, not_fitted, require_inputs

LIMIT = 1e6
"""Scores are limited to this size; models with absurd weights must not make them infinite."""


class SuspicionOfModels(ABC):
    """Scores models one at a time; higher is more suspicious.

    Args:
        shadows: Clean models to train for the threshold; 0 takes the published one.
        false_alarms: Share of clean models that may be suspected, when there are shadows.

    Raises:
        ConfigurationError: if a setting is impossible, or there are too few shadows for the rate.
    """

    name: ClassVar[str]
    level: ClassVar[Level] = "model"
    published: ClassVar[float]
    """Threshold of the paper."""

    def __init__(self, *, shadows: int = 0, false_alarms: float = 0.05) -> None:
        if shadows < 0:
            raise ConfigurationError(expected("shadows", "0 or more", shadows))
        if shadows:  # refuse before hours of training, not after
            conformal_threshold(np.zeros(shadows), false_alarms, "shadow models")
        self.shadows, self.false_alarms = shadows, false_alarms
        self._held: Held | None = None
        self._threshold: float | None = None

    def fit(self, held: Held) -> Self:
        """Keep what the defender holds, find the threshold, and return the scanner.

        Raises:
            ConfigurationError: in one sentence, if something that the scanner needs is missing.
        """
        self._check(held)
        self._held = held
        self._threshold = self.published
        if self.shadows:
            clean = train_shadows(held, self.shadows, 0, self.name)
            scores = self.score([shadow.model for shadow in clean])
            self._threshold = conformal_threshold(scores, self.false_alarms, "shadow models")
        return self

    def score(self, judged: Sequence[nn.Module]) -> Scores:
        """Return `(models,)` scores, finite; the models are left as they were.

        Raises:
            ConfigurationError: if the scanner is not fitted.
            ModelError: if a model cannot take the clean samples, or cannot be looked into.
        """
        if self._held is None:
            raise not_fitted(self.name)
        scores = [self._suspicion(frozen(model), self._held) for model in judged]
        return limited(scores)

    @property
    def threshold(self) -> float:
        """Score above which a model is suspected.

        Raises:
            ConfigurationError: if the scanner is not fitted.
        """
        if self._threshold is None:
            raise not_fitted(self.name)
        return self._threshold

    @abstractmethod
    def _check(self, held: Held) -> None:
        """Refuse, in one sentence, what the scanner cannot work with."""

    @abstractmethod
    def _suspicion(self, model: nn.Module, held: Held) -> float:
        """Return the score of one model, a private copy without gradients in eval mode."""


def limited(scores: Sequence[float]) -> Scores:
    """Return scores within ±`LIMIT`; what is not a number is as suspicious as can be."""
    finite = np.nan_to_num(np.array(scores, dtype=np.float64), nan=LIMIT)
    return np.clip(finite, -LIMIT, LIMIT)


def frozen(model: object) -> nn.Module:
    """Return a copy of a model in eval mode and single precision, without gradients.

    Raises:
        ModelError: if it is no `torch.nn.Module`.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(expected("model", "a torch.nn.Module", type(model).__name__))
    return copy.deepcopy(model).eval().float().requires_grad_(False)


def require_images(held: Held, name: str, fewest: int = 1) -> Tensor:
    """Return the clean images `(samples, channels, height, width)`, at least `fewest`.

    Raises:
        ConfigurationError: if the task is not one of images, or there are too few.
    """
    images = None if held.spec.modality != "image" else require_inputs(held, name)
    if images is None or images.dim() != 4 or not images.is_floating_point():
        raise ConfigurationError(
            f"The scanner {name} searches for a pattern of pixels and judges models of images "
            f"only, got {held.spec.modality} inputs. For text choose mntd."
        )
    if len(images) < fewest:
        raise ConfigurationError(
            expected("clean", f"at least {fewest} samples for the scanner {name}", len(images))
        )
    return images


def require_classes(held: Held, name: str) -> None:
    """Check that the clean samples, where they have labels, are of two classes or more.

    Raises:
        ConfigurationError: if there is a single class.
    """
    labels = held.clean.labels
    if held.spec.num_classes < 2 or (labels is not None and len(set(labels.tolist())) < 2):
        raise ConfigurationError(
            f"The scanner {name} compares classes with each other, and the clean samples are of a "
            "single one. Give samples of two classes or more."
        )
