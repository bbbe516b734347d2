"""No trigger: inputs stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fl_shield.data.task import Task


@dataclass(frozen=True, kw_only=True)
class Untouched:
    """The identity, for attacks on labels alone such as `LabelFlip`."""

    modality: ClassVar[None] = None

    def __str__(self) -> str:
        return "no trigger"

    def bind(self, task: Task) -> Untouched:
        """Return this trigger: it takes inputs of every kind."""
        return self

    def apply(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a copy of `inputs`."""
        return inputs.clone()
