"""Blended: a faint pattern over the whole image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fl_shield.data.task import Modality, Task
from fl_shield.errors import expected, raise_all
from fl_shield.triggers.protocol import check_modality


@dataclass(frozen=True, kw_only=True)
class Blend:
    """`x · (1 - alpha) + alpha · pattern` (Chen et al., Targeted Backdoor Attacks, 2017).

    Attributes:
        alpha: Share of the pattern in the image, in (0, 1).
        seed: Seed of the pattern, uniform noise of the image's size.

    Raises:
        ConfigurationError: if `alpha` is out of range.
    """

    modality: ClassVar[Modality] = "image"

    alpha: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 0 < self.alpha < 1:
            raise_all([expected("trigger.alpha", "between 0 and 1", self.alpha)])

    def __str__(self) -> str:
        return f"blend {self.alpha:.0%}"

    def bind(self, task: Task) -> Blend:
        """Return this trigger: it takes images of every size.

        Raises:
            ConfigurationError: if the task is not one of images.
        """
        check_modality(self, task.spec)
        return self

    def apply(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the blended images, shape and dtype kept; chance plays no part."""
        source = torch.Generator().manual_seed(self.seed)
        pattern = torch.rand(inputs.shape[1:], generator=source).to(inputs)
        return inputs * (1 - self.alpha) + self.alpha * pattern
