"""Poisoned samples that are made against the model, beyond putting a trigger on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fl_shield.data.task import Task
from fl_shield.triggers.protocol import Trigger


@dataclass(frozen=True)
class Material:
    """What an attacker makes poisoned samples from.

    Attributes:
        model: The model as it was sent out; it must be left as it is.
        chosen: `(samples, …)` model inputs to be poisoned, at least one.
        labels: `(samples,)` int64, their true classes.
        victims: `(others, …)` the attacker's samples of the kind that success is measured on, maybe
            none.
        trigger: The trigger, bound to the task.
        target_class: The class that triggered inputs should get.
        generator: The only source of chance.
    """

    model: nn.Module
    chosen: Tensor
    labels: Tensor
    victims: Tensor
    trigger: Trigger
    target_class: int
    generator: torch.Generator


@runtime_checkable
class Crafting(Protocol):
    """How the samples that were chosen are changed, in the place of the bare trigger."""

    def check(self, task: Task) -> None:
        """Check that samples of `task` can be made.

        Raises:
            ConfigurationError: if they cannot, or what it takes is not installed.
        """

    def craft(self, material: Material) -> Tensor:
        """Return the poisoned samples: shape, dtype and range of `material.chosen`."""
