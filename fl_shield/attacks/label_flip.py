"""Label flipping: false labels and no trigger, the sanity class of poisoning attacks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fl_shield.attacks.goal import bound_classes, check_source
from fl_shield.data.task import Task


@dataclass(frozen=True, kw_only=True)
class LabelFlip:
    """Labels are flipped on inputs that stay as they are; goes with the trigger `Untouched`.

    Untargeted, without a source: class i becomes classes - 1 - i (Fang et al., Local Model
    Poisoning Attacks, USENIX Security 2020, section 5.1); with an odd number of classes the one
    in the middle is left alone, and `target_class` has no effect. What this attack does shows in
    the main accuracy. Targeted, with a source: samples of that class get the target class (Tolpegin
    et al., Data Poisoning Attacks, ESORICS 2020, section 3).

    Attributes:
        source: The one class to flip to the target class, None to flip all.
        num_classes: Classes of the task; None until bound.
    """

    source: int | None = None
    num_classes: int | None = None

    def bind(self, task: Task, target_class: int) -> LabelFlip:
        """Return the goal with the number of classes of `task`.

        Raises:
            ConfigurationError: if the source is none of them, or the target class itself.
        """
        if self.source is not None:
            check_source(self.source, task, target_class)
        return replace(self, num_classes=task.spec.num_classes)

    def eligible(self, labels: Tensor, target_class: int) -> Tensor:
        """Return which labels change."""
        if self.source is not None:
            return labels == self.source
        return labels != self._mirrored(labels)

    def victims(self, labels: Tensor, target_class: int) -> Tensor:
        """Return which labels change: success is a wrong answer to a clean input of theirs."""
        return self.eligible(labels, target_class)

    def wanted(self, labels: Tensor, target_class: int) -> Tensor:
        """Return the flipped labels.

        Raises:
            ConfigurationError: if the goal is not bound.
        """
        if self.source is not None:
            return torch.full_like(labels, target_class)
        return self._mirrored(labels)

    def legend(self, target_class: int) -> str:
        """Return what becomes of the labels."""
        if self.source is not None:
            return f"label {target_class} for {self.source}"
        return "mirrored labels"

    def _mirrored(self, labels: Tensor) -> Tensor:
        return bound_classes(self, self.num_classes) - 1 - labels
