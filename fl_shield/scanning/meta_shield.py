"""MetaShield at sample level: a detector that was meta-learned on other tasks judges single inputs.

The input is held against a handful of clean samples (MetaShield proposal, section 2.1.2). All are
described without dimensions (`fl_shield.scanning.sample_descriptors`), and the input is judged
among the clean samples as the update-level detector judges a client in its round.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from fl_shield.errors import ConfigurationError, StateError, expected
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.scanning.calibration import conformal_threshold
from fl_shield.scanning.describing import SampleDescriber
from fl_shield.scanning.protocol import (
    Held,
    Level,
    Samples,
    Scores,
    check_form,
    not_fitted,
    require_inputs,
)
from fl_shield.scanning.sample_detector import CARD, load_sample_detector

SHIPPED = Path(__file__).parent / "weights"
"""Folder of the detector that comes with the package."""

REFERENCE = 16
"""Clean samples that inputs are held against; more of them calibrate the threshold."""

LIMITS = "thresholds"
"""Entry of the card: rate of false alarms to the threshold that kept to it on unseen data sets."""


class MetaShieldSamples:
    """Scores inputs by whether they carry the trigger of a backdoor that the model has.

    The first `REFERENCE` clean samples are what inputs are held against. If there are enough others
    for the asked rate of false alarms, the threshold is their split-conformal quantile. Otherwise
    it is the one of the card: what clean inputs of data sets that had not been seen kept to.

    Args:
        weights: Folder of a trained detector, None for the package's.
        false_alarms: Share of clean inputs that may be suspected.
    """

    name: ClassVar[str] = "meta_shield"
    level: ClassVar[Level] = "sample"

    def __init__(self, *, weights: str | Path | None = None, false_alarms: float = 0.05) -> None:
        if not 0.0 < false_alarms < 1.0:
            raise ConfigurationError(
                expected("scanner.false_alarms", "between 0 and 1", false_alarms)
            )
        self.weights, self.false_alarms = weights, false_alarms
        self._held: Held | None = None
        self._threshold: float | None = None

    def fit(self, held: Held) -> Self:
        """Describe the clean samples and set the threshold.

        Raises:
            ConfigurationError: if there are fewer than four clean samples, or too few for a rate
                of false alarms that the card has no threshold for.
            StateError: if the detector is damaged.
        """
        inputs = require_inputs(held, self.name)
        detector = load_sample_detector(SHIPPED if self.weights is None else self.weights)
        first, rest = reference_of(inputs, held.clean.labels, REFERENCE)
        self._describer = SampleDescriber(replace(held, clean=ProbeSet(inputs[first])), self.name)
        self._reference = self._describer.reference()
        self._detector = detector
        self._held = held
        needed = math.ceil(1.0 / self.false_alarms - 1e-9) - 1
        if len(rest) >= needed:
            own = self.score(Samples(inputs[rest]))
            self._threshold = conformal_threshold(own, self.false_alarms)
        else:
            self._threshold = card_threshold(
                detector.card, self.false_alarms, REFERENCE + needed, len(inputs)
            )
        return self

    def score(self, judged: Samples) -> Scores:
        """Return the score of each input, which does not depend on the other inputs."""
        if self._held is None:
            raise not_fitted(self.name)
        check_form(self._held, judged, self.name)
        rows = self._describer.describe(judged.inputs)
        return self._detector.score(self._describer.names, self._reference, rows)

    @property
    def threshold(self) -> float:
        """Score above which an input is suspected."""
        if self._threshold is None:
            raise not_fitted(self.name)
        return self._threshold


def reference_of(inputs: Tensor, labels: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
    """Return the rows that inputs are held against, evenly over classes, and all other rows."""
    from fl_shield.data.sampling import stratified_indices

    order = (
        torch.arange(len(inputs))
        if labels is None
        else stratified_indices(labels, len(inputs), seed=0)
    )
    return order[:count], order[count:]


def card_threshold(card: dict[str, Any], false_alarms: float, needed: int, there: int) -> float:
    """Return the card's threshold for a rate of false alarms: that of the next stricter rate.

    Raises:
        ConfigurationError: if the card has none so strict.
        StateError: if the card has no thresholds at all.
    """
    limits = card.get(LIMITS)
    if not isinstance(limits, dict) or not limits:
        raise StateError(f"{CARD} has no {LIMITS!r}: it is no detector of samples.")
    kept = {float(rate): float(limit) for rate, limit in limits.items()}
    fitting = [rate for rate in kept if rate <= false_alarms + 1e-12]
    if not fitting:
        raise ConfigurationError(
            f"Expected at least {needed} clean samples to calibrate on for a false-alarm rate of "
            f"{false_alarms:g}, got {there}. Give more, or raise false_alarms to {min(kept):g}."
        )
    return kept[max(fitting)]
