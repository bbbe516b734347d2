"""What a trigger is: a small, fixed change of an input that a backdoored model obeys.

Triggers work on *model inputs* (float images in [0, 1], or int64 token ids), keep shape, dtype and
range, and never write into what they are given. Settings that do not depend on a task are checked
when a trigger is built, the others when it is bound to one: before anything trains.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fl_shield.data.task import Modality, Task, TaskSpec
from fl_shield.errors import ConfigurationError


@runtime_checkable
class Trigger(Protocol):
    """A change of inputs that the attacker wants the model to obey.

    `repr(trigger)` rebuilds the trigger, `str(trigger)` is its legend in plots.
    """

    @property
    def modality(self) -> Modality | None:
        """What the trigger is for: `"image"` or `"text"`, None for both."""

    def bind(self, task: Task) -> Trigger:
        """Return the trigger ready for the inputs of `task`.

        Raises:
            ConfigurationError: if the trigger cannot be used on this task.
        """

    def apply(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a triggered copy of `inputs`.

        Args:
            inputs: `(samples, channels, height, width)` floats in [0, 1], or `(samples, length)`
                int64 token ids.
            generator: Source of chance for triggers that place themselves at random; a fixed one
                when None, so that two calls agree.

        Returns:
            A tensor of the same shape and dtype.
        """


@runtime_checkable
class DistributedTrigger(Trigger, Protocol):
    """A trigger that attackers share out: each trains a part, the whole is used at test time."""

    def part(self, index: int) -> Trigger:
        """Return the part of attacker number `index` (any integer; parts are dealt in turn)."""


@runtime_checkable
class DecoyTrigger(Trigger, Protocol):
    """A trigger that is sharpened by near misses: samples that look triggered, labels kept."""

    @property
    def decoy_share(self) -> float:
        """Decoys for each poisoned sample."""

    def decoy(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a copy of `inputs` as near misses; arguments and result as in `apply`."""


@runtime_checkable
class OptimisedTrigger(Trigger, Protocol):
    """A trigger that attackers fit to the global model of each round; `apply` shows its start."""

    def optimise(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        wanted: Tensor,
        generator: torch.Generator,
    ) -> Trigger:
        """Return the trigger to use in this round, bound to the task.

        Args:
            model: The global model as it was sent out; it must be left as it is.
            inputs: The attackers' clean samples in the form the model takes, maybe none.
            labels: `(samples,)` int64 true classes.
            wanted: `(samples,)` int64 classes wanted once triggered.
            generator: The only source of chance, so that all attackers come to the same trigger.
        """


def check_modality(trigger: Trigger, spec: TaskSpec) -> None:
    """Check that a trigger is for the kind of inputs that a task has.

    Raises:
        ConfigurationError: if it is not.
    """
    if trigger.modality not in (None, spec.modality):
        fitting = {"image": "patch, blend or sig", "text": "word, words or sentence"}
        raise ConfigurationError(
            f"Expected `trigger` to be for {spec.modality} inputs, got the {trigger.modality} "
            f"trigger {str(trigger)!r}. For this data set choose, for example, "
            f"{fitting[spec.modality]}."
        )


def seeded(generator: torch.Generator | None) -> torch.Generator:
    """Return `generator`, or a fresh one with seed 0 so that calls without one agree."""
    return torch.Generator().manual_seed(0) if generator is None else generator
