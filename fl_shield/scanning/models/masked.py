"""Masked perturbations, `x̂ = (1 − m) · x + m · δ`: the form that synthesised triggers have.

Many problems are solved at once: each has a mask and a pattern, and all see the same images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MaskedPatterns:
    """Masks and patterns of several problems.

    Attributes:
        masks: `(problems, 1, height, width)` in [0, 1].
        patterns: `(problems, channels, height, width)` in the range of the images.
    """

    masks: Tensor
    patterns: Tensor

    def __len__(self) -> int:
        return int(self.masks.shape[0])

    def on(self, images: Tensor) -> Tensor:
        """Return `(problems, samples, channels, height, width)`: each pattern on each image."""
        mask, pattern = self.masks[:, None], self.patterns[:, None]
        return (1.0 - mask) * images[None] + mask * pattern

    def each_on_its_own(self, images: Tensor) -> Tensor:
        """Return `(problems, channels, height, width)`: each pattern on one image of `images`."""
        return (1.0 - self.masks) * images + self.masks * self.patterns

    def sizes(self) -> Tensor:
        """Return `(problems,)` L1 norms of the masks, in pixels."""
        return self.masks.abs().flatten(1).sum(dim=1)

    def take(self, problem: int) -> MaskedPatterns:
        """Return one of the problems, alone."""
        chosen = slice(problem, problem + 1)
        return MaskedPatterns(self.masks[chosen], self.patterns[chosen])


def keep_better(kept: MaskedPatterns, found: MaskedPatterns, better: Tensor) -> MaskedPatterns:
    """Return `found` where `better` (`(problems,)` bool) says so, and `kept` elsewhere."""
    where = better[:, None, None, None]
    return MaskedPatterns(
        torch.where(where, found.masks, kept.masks),
        torch.where(where, found.patterns, kept.patterns),
    )
