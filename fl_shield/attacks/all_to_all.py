"""All-to-all: every triggered input should get the class after its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fl_shield.attacks.goal import bound_classes
from fl_shield.data.task import Task


@dataclass(frozen=True, kw_only=True)
class AllToAll:
    """Class i becomes (i + 1) mod classes (Gu et al., BadNets, 2017, section 4.1.2).

    There is no one target: the attack's `target_class` has no effect.

    Attributes:
        num_classes: Classes of the task; None until bound.
    """

    num_classes: int | None = None

    def bind(self, task: Task, target_class: int) -> AllToAll:
        """Return the goal with the number of classes of `task`."""
        return replace(self, num_classes=task.spec.num_classes)

    def eligible(self, labels: Tensor, target_class: int) -> Tensor:
        """Return True for every sample: each class has another one to become."""
        return torch.ones_like(labels, dtype=torch.bool)

    def victims(self, labels: Tensor, target_class: int) -> Tensor:
        """Return True for every sample."""
        return torch.ones_like(labels, dtype=torch.bool)

    def wanted(self, labels: Tensor, target_class: int) -> Tensor:
        """Return `(labels + 1) mod classes`.

        Raises:
            ConfigurationError: if the goal is not bound.
        """
        return (labels + 1) % bound_classes(self, self.num_classes)

    def legend(self, target_class: int) -> str:
        """Return what every class becomes."""
        return "next class"
