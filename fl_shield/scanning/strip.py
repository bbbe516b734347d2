"""STRIP: a triggered input keeps its class whatever is laid over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from fl_shield.errors import expected, raise_all
from fl_shield.scanning.calibration import conformal_threshold
from fl_shield.scanning.protocol import (
    Held,
    Level,
    Samples,
    Scores,
    check_form,
    not_fitted,
    require_inputs,
)
from fl_shield.scanning.reading import ModelReader


class Strip:
    """Minus the mean entropy of predictions under perturbation.

    Images are superimposed with clean ones (Gao et al., *STRIP*, ACSAC 2019, section 4, eq. 4); in
    texts, a share of the words is replaced by words of clean texts (Gao et al., *Design and
    Evaluation of a Multi-Domain Trojan Detection Method on Deep Neural Networks*, TDSC 2021,
    section 3). Entropies are in bits. No clean sample is laid over itself when the threshold is
    calibrated.

    Args:
        overlays: Clean samples laid over each input; all there are, where there are fewer.
        weight: Share of the input in the superimposed image; 1 adds the two and cuts off at 1, as
            the authors' program does.
        replaced: Share of the words that are replaced in a text.
        false_alarms: Share of clean inputs that may be suspected.

    Raises:
        ConfigurationError: if a setting is impossible.
    """

    name: ClassVar[str] = "strip"
    level: ClassVar[Level] = "sample"

    def __init__(
        self,
        *,
        overlays: int = 32,
        weight: float = 0.5,
        replaced: float = 0.5,
        false_alarms: float = 0.05,
    ) -> None:
        problems = []
        if overlays < 1:
            problems.append(expected("scanner.overlays", "1 or more", overlays))
        for key, value in (("weight", weight), ("replaced", replaced)):
            if not 0 < value <= 1:
                problems.append(expected(f"scanner.{key}", "above 0 and at most 1", value))
        raise_all(problems)
        self.overlays, self.weight, self.replaced = overlays, weight, replaced
        self.false_alarms = false_alarms
        self._fitted: tuple[ModelReader, Tensor, Held] | None = None
        self._threshold: float | None = None

    def fit(self, held: Held) -> Self:
        """Keep the clean samples as overlays and calibrate on them, leaving one out at a time."""
        reader = ModelReader.of(held, self.name)
        clean = require_inputs(held, self.name)
        self._fitted = (reader, clean, held)
        others = [[k for k in range(len(clean)) if k != own] for own in range(len(clean))]
        scores = -self._entropies(clean, self._draw(others, held.seed))
        self._threshold = conformal_threshold(scores, self.false_alarms)
        return self

    def score(self, judged: Samples) -> Scores:
        """Return minus the mean entropy of each input's predictions under perturbation."""
        if self._fitted is None:
            raise not_fitted(self.name)
        _, clean, held = self._fitted
        check_form(held, judged, self.name)
        everyone = list(range(len(clean)))
        return -self._entropies(judged.inputs, self._draw([everyone] * len(judged), held.seed + 1))

    @property
    def threshold(self) -> float:
        """Score above which an input is suspected."""
        if self._threshold is None:
            raise not_fitted(self.name)
        return self._threshold

    def _draw(self, pools: Sequence[Sequence[int]], seed: int) -> Tensor:
        """Return the overlays of each input, `(samples, overlays)` indices without repetition."""
        rng = np.random.default_rng(seed)
        rows = [rng.permutation(pool)[: self.overlays] for pool in pools]
        return torch.from_numpy(np.array(rows, dtype=np.int64).reshape(len(pools), -1))

    def _entropies(self, inputs: Tensor, chosen: Tensor) -> Scores:
        assert self._fitted is not None  # both callers have set or checked it
        reader, clean, held = self._fitted
        generator = torch.Generator().manual_seed(held.seed)
        found = np.zeros(len(inputs))
        for row, (own, picks) in enumerate(zip(inputs, chosen, strict=True)):
            over = clean[picks]
            if held.spec.modality == "image":
                mixed = superimpose(own.expand_as(over), over, self.weight)
            else:
                mixed = replace_words(
                    own.expand_as(over), over, self.replaced, held.spec.pad_id, generator
                )
            found[row] = float(entropy(reader.read(mixed).probabilities).mean())
        return found


def superimpose(inputs: Tensor, overlays: Tensor, weight: float) -> Tensor:
    """Return `weight · inputs + (1 − weight) · overlays`, or their sum cut off at 1 for weight 1.

    Args:
        inputs: `(samples, channels, height, width)` in [0, 1].
        overlays: Of the same shape.
        weight: Share of the inputs, above 0 and at most 1.
    """
    if weight >= 1.0:
        return (inputs + overlays).clamp(0.0, 1.0)
    return weight * inputs + (1.0 - weight) * overlays


def replace_words(
    inputs: Tensor, overlays: Tensor, share: float, pad_id: int, generator: torch.Generator
) -> Tensor:
    """Return texts in which each word is replaced, by chance, by the overlay's at its place.

    Args:
        inputs: `(samples, length)` token ids.
        overlays: Of the same shape.
        share: Probability that a word is replaced.
        pad_id: Padding token id; padding neither replaces nor is replaced.
        generator: Source of chance.
    """
    chance = torch.rand(inputs.shape, generator=generator) < share
    words = (inputs != pad_id) & (overlays != pad_id)
    return torch.where(chance.to(inputs.device) & words, overlays, inputs)


def entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy of each row in bits, `(samples,)`."""
    bits: Tensor = torch.special.xlogy(probabilities, probabilities).sum(dim=1) / math.log(2.0)
    return -bits
