"""Clean-label: only samples that have the target class already are triggered; no label is false."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fl_shield.data.task import Task


@dataclass(frozen=True)
class CleanLabel:
    """Target-class samples are triggered, labels stay (Barni et al., SIG, ICIP 2019)."""

    def bind(self, task: Task, target_class: int) -> CleanLabel:
        """Return this goal: it fits all classes."""
        return self

    def eligible(self, labels: Tensor, target_class: int) -> Tensor:
        """Return `labels == target_class`."""
        return labels == target_class

    def victims(self, labels: Tensor, target_class: int) -> Tensor:
        """Return `labels != target_class`: on the target class, success proves nothing."""
        return labels != target_class

    def wanted(self, labels: Tensor, target_class: int) -> Tensor:
        """Return the target class for every sample."""
        return torch.full_like(labels, target_class)

    def legend(self, target_class: int) -> str:
        """Return the target class, and that labels stay."""
        return f"class {target_class}, clean-label"
