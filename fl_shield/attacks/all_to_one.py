"""All-to-one: every triggered input should get the target class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fl_shield.data.task import Task


@dataclass(frozen=True)
class AllToOne:
    """Samples of all other classes are poisoned and relabelled with the target class."""

    def bind(self, task: Task, target_class: int) -> AllToOne:
        """Return this goal: it fits all classes."""
        return self

    def eligible(self, labels: Tensor, target_class: int) -> Tensor:
        """Return `labels != target_class`: relabelling the target class would teach nothing."""
        return labels != target_class

    def victims(self, labels: Tensor, target_class: int) -> Tensor:
        """Return `labels != target_class`: on the target class, success proves nothing."""
        return labels != target_class

    def wanted(self, labels: Tensor, target_class: int) -> Tensor:
        """Return the target class for every sample."""
        return torch.full_like(labels, target_class)

    def legend(self, target_class: int) -> str:
        """Return the target class."""
        return f"class {target_class}"
