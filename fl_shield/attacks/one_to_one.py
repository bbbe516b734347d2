"""One-to-one: triggered inputs of one class should get the target class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fl_shield.attacks.goal import check_source
from fl_shield.data.task import Task


@dataclass(frozen=True, kw_only=True)
class OneToOne:
    """Samples of class `source` alone are poisoned (Gu et al., BadNets, 2017, section 4.1.2).

    The paper's "single target attack". Nothing is asked of triggered inputs of other classes, and
    success is measured on those of the source class only. An attacker without such samples has
    nothing to poison, and trains as an honest client does.

    Attributes:
        source: The class whose triggered inputs should get the target class.
    """

    source: int

    def bind(self, task: Task, target_class: int) -> OneToOne:
        """Check that the source class is another one of `task` and return this goal.

        Raises:
            ConfigurationError: if it is not.
        """
        check_source(self.source, task, target_class)
        return self

    def eligible(self, labels: Tensor, target_class: int) -> Tensor:
        """Return `labels == source`."""
        return labels == self.source

    def victims(self, labels: Tensor, target_class: int) -> Tensor:
        """Return `labels == source`."""
        return labels == self.source

    def wanted(self, labels: Tensor, target_class: int) -> Tensor:
        """Return the target class for every sample."""
        return torch.full_like(labels, target_class)

    def legend(self, target_class: int) -> str:
        """Return both classes."""
        return f"class {target_class} for {self.source}"
