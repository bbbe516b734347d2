"""Edge cases: whole images from the tail of what a class may look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from fl_shield.data.task import Modality, Task
from fl_shield.errors import ConfigurationError, raise_all, unknown
from fl_shield.triggers.protocol import check_modality

Kind = Literal["negative", "quarter_turn", "half_turn", "recoloured"]

ONE_CHANNEL = "Choose trigger.kind=negative for grey images."
NOT_SQUARE = "Choose trigger.kind=half_turn for images that are not square."


@dataclass(frozen=True, kw_only=True)
class EdgeCase:
    """Shows an input as a rare, but natural, member of its class, with no pattern on it.

    After Wang et al., Attack of the Tails, NeurIPS 2020, section 3, where attackers hold inputs
    that hardly occur in anybody else's data (Southwest airplanes for CIFAR-10, ARDIS sevens for
    MNIST) and give them another label; there is nothing in such an input to be found or cut out.
    *A stand-in*: those collections are not part of a data set that is loaded here. The tail is
    made instead, by a change of the whole image that leaves it what it is and that no training
    image has gone through. It is rarer and more uniform than a collected tail, so the backdoor is
    easier to learn. The paper's attack is on one class: take `goal=one_to_one`.

    Attributes:
        kind: `"negative"`: light and dark exchanged; `"quarter_turn"`: turned by 90° against the
            clock; `"half_turn"`: upside down; `"recoloured"`: red becomes green, green blue, blue
            red.

    Raises:
        ConfigurationError: if the kind is unknown.
    """

    modality: ClassVar[Modality] = "image"

    kind: Kind = "negative"

    def __post_init__(self) -> None:
        """Check the kind."""
        if self.kind not in get_args(Kind):
            raise_all([unknown("trigger.kind", self.kind, get_args(Kind))])

    def __str__(self) -> str:
        return f"edge case {self.kind.replace('_', ' ')}"

    def bind(self, task: Task) -> EdgeCase:
        """Check that the images of `task` can be changed so and return this trigger.

        Raises:
            ConfigurationError: if they cannot, or the task is not one of images.
        """
        check_modality(self, task.spec)
        channels, height, width = task.spec.input_shape
        if self.kind == "recoloured" and channels != 3:
            raise ConfigurationError(
                f"Expected images with 3 channels to recolour, got {channels}. {ONE_CHANNEL}"
            )
        if self.kind == "quarter_turn" and height != width:
            raise ConfigurationError(
                f"Expected square images for a quarter turn, got {height}x{width}. {NOT_SQUARE}"
            )
        return self

    def apply(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return `inputs` (`(samples, channels, height, width)`) as edge cases."""
        del generator  # nothing is left to chance
        if self.kind == "negative":
            return 1 - inputs
        if self.kind == "quarter_turn":
            return inputs.rot90(1, dims=(-2, -1))
        if self.kind == "half_turn":
            return inputs.rot90(2, dims=(-2, -1))
        return inputs.roll(1, dims=-3)
