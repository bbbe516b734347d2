"""Evidence maps: what a model's feature maps say for the class it predicts, comparable over models.

The evidence of a pixel is its activation times the slope of the predicted class's logit there
(Draelos and Carin, *Use HiResCAM instead of Grad-CAM*, 2020, equation 2, before the sum over
channels). A model whose channels are scaled or moved about, and the next layer with them, is the
same function and has the same evidence. Two views of it are stacked: its amount, and how far it is
from that of clean inputs which get the same class. A trigger is loud in the first, and in the
second what a class usually goes by is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

PRIOR = 8.0
"""The mean of a class is drawn towards that of all classes, as if by so many samples."""


@dataclass(frozen=True)
class CleanEvidence:
    """What the evidence of clean inputs is like in one model.

    Attributes:
        amount: Mean evidence of an input, summed over its maps.
        spread: `(channels, height, width)` standard deviations, plus a tenth of that of all pixels.
        usual: `(classes, channels, height, width)` means of the inputs that get a class.
    """

    amount: Tensor
    spread: Tensor
    usual: Tensor

    @classmethod
    def of(cls, logits: Tensor, evidence: Tensor) -> Self:
        """Return that of clean inputs.

        Args:
            logits: `(samples, classes)`.
            evidence: `(samples, channels, height, width)`.
        """
        given = torch.nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1]).float()
        sums = torch.einsum("sk,schw->kchw", given, evidence)
        counts = given.sum(dim=0)[:, None, None, None]
        return cls(
            evidence.sum(dim=(1, 2, 3)).mean().clamp_min(1e-6),
            evidence.std(dim=0, correction=0) + 0.1 * evidence.std(correction=0).clamp_min(1e-6),
            (sums + PRIOR * evidence.mean(dim=0)) / (counts + PRIOR),
        )

    def arrange(self, logits: Tensor, evidence: Tensor) -> Tensor:
        """Return both views of inputs, `(samples, 2 · channels, height, width)`.

        Channels of each are sorted by their sums, as a channel of one model is none of another.

        Args:
            logits: `(samples, classes)`.
            evidence: `(samples, channels, height, width)`.
        """
        amount = evidence * (evidence.shape[1] / self.amount)
        away = (evidence - self.usual[logits.argmax(dim=1)]) / self.spread
        away = away.sign() * away.abs().log1p()  # some pixels hardly ever vary
        return torch.cat([_sorted(amount), _sorted(away)], dim=1)


def mirrored(maps: Tensor) -> Tensor:
    """Return maps and their three reflections, one after another: triggers may be anywhere."""
    return torch.cat([maps, maps.flip(2), maps.flip(3), maps.flip(2, 3)])


def _sorted(maps: Tensor) -> Tensor:
    order = maps.sum(dim=(2, 3)).argsort(dim=1, descending=True)
    return maps.gather(1, order[:, :, None, None].expand_as(maps))
