"""What the attacker wants: which samples it poisons, and which class triggered ones should get."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Goal(Protocol):
    """The map from true classes to the classes that the attacker wants for triggered inputs."""

    def eligible(self, labels: Tensor, target_class: int) -> Tensor:
        """Return which training samples may be poisoned: `(samples,)` bool."""

    def victims(self, labels: Tensor, target_class: int) -> Tensor:
        """Return on which test samples success is measured: `(samples,)` bool."""

    def wanted(self, labels: Tensor, target_class: int) -> Tensor:
        """Return the class wanted for each sample once triggered: `(samples,)` int64."""
