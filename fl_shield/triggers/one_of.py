"""One of several triggers, drawn anew for each input."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fl_shield.data.task import Modality, Task
from fl_shield.errors import expected, raise_all
from fl_shield.triggers.protocol import Trigger, seeded


@dataclass(frozen=True, kw_only=True)
class OneOf:
    """Gives each input one of `options`, all equally likely.

    Attributes:
        options: The triggers, all for the same kind of inputs.
        legend: Name in plots.

    Raises:
        ConfigurationError: if there are none, or they differ in kind.
    """

    options: tuple[Trigger, ...]
    legend: str = "one of several"

    def __post_init__(self) -> None:
        """Check that there is something to choose from."""
        if not self.options or len({option.modality for option in self.options}) > 1:
            raise_all(
                [expected("trigger.options", "triggers for one kind of inputs", self.options)]
            )

    def __str__(self) -> str:
        return self.legend

    @property
    def modality(self) -> Modality | None:
        """What the options are for."""
        return self.options[0].modality

    def bind(self, task: Task) -> OneOf:
        """Return the trigger with every option bound to `task`.

        Raises:
            ConfigurationError: if one of them cannot be used on it.
        """
        return replace(self, options=tuple(option.bind(task) for option in self.options))

    def apply(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a copy of `inputs`, each with the trigger drawn for it."""
        generator = seeded(generator)
        drawn = torch.randint(
            len(self.options), (len(inputs),), generator=generator, device=generator.device
        ).to(inputs.device)
        triggered = inputs.clone()
        for number, option in enumerate(self.options):
            chosen = drawn == number
            triggered[chosen] = option.apply(inputs[chosen], generator)
        return triggered
