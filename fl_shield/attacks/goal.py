"""What the attacker wants: which samples it poisons, and which class triggered ones should get."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from fl_shield.data.task import Task
from fl_shield.errors import ConfigurationError, expected


@runtime_checkable
class Goal(Protocol):
    """The map from true classes to the classes that the attacker wants for triggered inputs."""

    def bind(self, task: Task, target_class: int) -> Goal:
        """Return the goal ready for the classes of `task`.

        Args:
            task: The task.
            target_class: The attack's target class, one of the task's.

        Raises:
            ConfigurationError: if the goal cannot be had with these classes.
        """

    def eligible(self, labels: Tensor, target_class: int) -> Tensor:
        """Return which training samples may be poisoned: `(samples,)` bool."""

    def victims(self, labels: Tensor, target_class: int) -> Tensor:
        """Return on which test samples success is measured: `(samples,)` bool."""

    def wanted(self, labels: Tensor, target_class: int) -> Tensor:
        """Return the class wanted for each sample once triggered: `(samples,)` int64."""

    def legend(self, target_class: int) -> str:
        """Return the goal in a few words, for plots."""


def check_source(source: int, task: Task, target_class: int) -> None:
    """Check that samples of class `source` exist and can be turned into the target class.

    Raises:
        ConfigurationError: if they cannot.
    """
    if not 0 <= source < task.spec.num_classes or source == target_class:
        raise ConfigurationError(
            expected(
                "attack.goal.source",
                f"one of the {task.spec.num_classes} classes of {task.name}, counted from 0, and "
                f"not the target class {target_class}",
                source,
                "Set goal.source or attack.target_class.",
            )
        )


def bound_classes(goal: Goal, num_classes: int | None) -> int:
    """Return the number of classes that a goal was bound to.

    Raises:
        ConfigurationError: if it was not.
    """
    if num_classes is None:
        raise ConfigurationError(
            f"The goal {goal!r} is not bound to a task yet. Call goal.bind(task, target_class) "
            "and use what it returns."
        )
    return num_classes
