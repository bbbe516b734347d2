"""MetaShield for whole models: a class among the classes of its model, as a client in its round.

The update-level detector describes clients without dimensions, standardises them across the cohort
and asks a detector that was meta-learned on other tasks. Here the cohort is the model's own
classes: each is described by how easily the model is drawn to it
(`fl_shield.scanning.models.class_descriptors`), and judged by a detector that was learned on shadow
models of other tasks (`fl_shield.scanning.models.class_detector`). No task or architecture has to
be known beforehand, and no shadow model has to be trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fl_shield.activations.penultimate import call_model, find_final_layer
from fl_shield.scanning.meta_shield import reference_of
from fl_shield.scanning.models.base import (
    SuspicionOfModels,
    frozen,
    require_classes,
    require_images,
)
from fl_shield.scanning.models.class_descriptors import ClassSearch, describe_classes
from fl_shield.scanning.models.class_detector import load_class_detector
from fl_shield.scanning.protocol import Held, not_fitted

SHIPPED = Path(__file__).parent / "weights"
"""Folder of the detector that comes with the package."""

FEWEST_IMAGES = 8


class MetaShieldModels(SuspicionOfModels):
    """Scores a model by the log-odds of its most suspicious class; above 0 it is suspected.

    Args:
        weights: Folder of a trained detector, None for the package's.
        search: How perturbations are searched; the detector was learned with the default.
        shadows: Clean models to train for the threshold; 0 takes the detector's.
        false_alarms: Share of clean models that may be suspected, when there are shadows.

    Raises:
        ConfigurationError: if a setting is impossible, or there is no such detector.
        StateError: if the detector is damaged.
    """

    name: ClassVar[str] = "meta_shield_model"
    published: ClassVar[float] = 0.0
    """What 5 % of the clean models of data sets that had not been seen scored above."""

    def __init__(
        self,
        *,
        weights: str | Path | None = None,
        search: ClassSearch | None = None,
        shadows: int = 0,
        false_alarms: float = 0.05,
    ) -> None:
        super().__init__(shadows=shadows, false_alarms=false_alarms)
        self.detector = load_class_detector(SHIPPED if weights is None else weights)
        self.search = search or ClassSearch()

    def __repr__(self) -> str:
        return f"MetaShieldModels(shadows={self.shadows})"

    def suspicious_classes(self, model: nn.Module) -> tuple[int, ...]:
        """Return the classes above the threshold, the most suspicious first: what to unlearn.

        Raises:
            ConfigurationError: if the scanner is not fitted.
            ModelError: if the model cannot be looked into.
        """
        if self._held is None:
            raise not_fitted(self.name)
        odds = self._log_odds(frozen(model), self._held)
        return tuple(int(label) for label in (-odds).argsort() if odds[label] > self.threshold)

    def _check(self, held: Held) -> None:
        require_images(held, self.name, FEWEST_IMAGES)
        require_classes(held, self.name)

    def _suspicion(self, model: nn.Module, held: Held) -> float:
        return float(self._log_odds(model, held).max())

    def _log_odds(self, model: nn.Module, held: Held) -> NDArray[np.float64]:
        """Return the log-odds of each class, `(classes,)`, of a private copy."""
        images, labels = require_images(held, self.name), held.clean.labels
        chosen, _ = reference_of(images, labels, 2 * self.search.images)
        images = images[chosen]
        # A model that cannot be looked into is refused before it is searched.
        layer = find_final_layer(model, images, held.final_layer)
        known = call_model(model, images).argmax(dim=1) if labels is None else labels[chosen]
        return self.detector.score(*describe_classes(model, images, known, layer, self.search))
