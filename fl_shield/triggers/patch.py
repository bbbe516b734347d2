"""BadNets patch: a small shape of fixed brightness at a fixed place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from fl_shield.data.task import Modality, Task
from fl_shield.errors import ConfigurationError, expected, raise_all, unknown
from fl_shield.triggers.pixels import is_length, pixels
from fl_shield.triggers.protocol import check_modality

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
Pattern = Literal["solid", "checkerboard", "cross"]


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A square of pixels set to `value` (Gu et al., BadNets, 2017, section 4.1).

    Pixels of the square that its pattern leaves out keep their value: `"checkerboard"` sets every
    second pixel, `"cross"` the two diagonals. A size of 1 is the single-pixel trigger.

    Attributes:
        size: Side of the square: pixels if an integer, share of the image's shorter side if a
            float below 1.
        corner: Corner that the square sits in.
        margin: Distance from that corner's two edges, in pixels.
        position: `(row, column)` of the square's upper left pixel; overrules corner and margin.
        value: Brightness in [0, 1], one for all channels or one each.
        pattern: Which pixels of the square are set.

    Raises:
        ConfigurationError: if a setting is impossible whatever the task.
    """

    modality: ClassVar[Modality] = "image"

    size: int | float = 3
    corner: Corner = "bottom-right"
    margin: int = 0
    position: tuple[int, int] | None = None
    value: float | tuple[float, ...] = 1.0
    pattern: Pattern = "solid"

    def __post_init__(self) -> None:
        """Check what does not depend on the task."""
        if isinstance(self.value, Sequence):
            object.__setattr__(self, "value", tuple(float(v) for v in self.value))
        if self.position is not None:
            object.__setattr__(self, "position", tuple(int(p) for p in self.position))
        problems = []
        if not is_length(self.size):
            problems.append(
                expected(
                    "trigger.size",
                    "a number of pixels, or a share of the image between 0 and 1",
                    self.size,
                    "Set trigger.size=3 for 3 pixels or trigger.size=0.15 for 15 % of the side.",
                )
            )
        if self.corner not in get_args(Corner):
            problems.append(unknown("trigger.corner", self.corner, get_args(Corner)))
        if self.pattern not in get_args(Pattern):
            problems.append(unknown("trigger.pattern", self.pattern, get_args(Pattern)))
        if self.margin < 0:
            problems.append(expected("trigger.margin", "0 or more pixels", self.margin))
        if self.position is not None and (len(self.position) != 2 or min(self.position) < 0):
            problems.append(
                expected("trigger.position", "a row and a column, both 0 or more", self.position)
            )
        if not all(0 <= v <= 1 for v in self._values()):
            problems.append(expected("trigger.value", "within [0, 1]", self.value))
        raise_all(problems)

    def __str__(self) -> str:
        size = f"{self.size:.0%}" if isinstance(self.size, float) else f"{self.size}x{self.size}"
        return f"patch {size}" if self.pattern == "solid" else f"{self.pattern} patch {size}"

    def bind(self, task: Task) -> Patch:
        """Check that the patch lies inside the images of `task` and return it.

        Raises:
            ConfigurationError: if it does not, or the task is not one of images.
        """
        check_modality(self, task.spec)
        channels, height, width = task.spec.input_shape
        self._box(height, width)
        if len(self._values()) not in (1, channels):
            raise ConfigurationError(
                expected(
                    "trigger.value",
                    f"one brightness, or one for each of the {channels} channel(s)",
                    self.value,
                )
            )
        return self

    def apply(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a copy of `inputs` (`(samples, channels, height, width)`) with the patch set."""
        del generator  # a patch leaves nothing to chance
        top, left, side = self._box(int(inputs.shape[-2]), int(inputs.shape[-1]))
        mask = self._mask(side).to(inputs.device)
        value = torch.tensor(self._values(), dtype=inputs.dtype, device=inputs.device)
        triggered = inputs.clone()
        box = triggered[..., top : top + side, left : left + side]
        box.copy_(torch.where(mask, value[:, None, None], box))
        return triggered

    def _values(self) -> tuple[float, ...]:
        return self.value if isinstance(self.value, tuple) else (float(self.value),)

    def _box(self, height: int, width: int) -> tuple[int, int, int]:
        """Return top row, left column and side of the square in an image of this size."""
        side = pixels(self.size, min(height, width))
        if self.position is not None:
            top, left = self.position
        else:
            vertical, horizontal = self.corner.split("-")
            top = self.margin if vertical == "top" else height - side - self.margin
            left = self.margin if horizontal == "left" else width - side - self.margin
        if top < 0 or left < 0 or top + side > height or left + side > width:
            raise ConfigurationError(
                f"Expected the trigger to lie inside the {height}x{width} images, got a {side}x"
                f"{side} patch with its upper left pixel at row {top}, column {left}. "
                "Lower trigger.size or trigger.margin, or move trigger.position."
            )
        return top, left, side

    def _mask(self, side: int) -> Tensor:
        """Return the `(side, side)` bool mask of the pixels that are set."""
        row, column = torch.arange(side)[:, None], torch.arange(side)[None, :]
        if self.pattern == "checkerboard":
            return (row + column) % 2 == 0
        if self.pattern == "cross":
            return (row == column) | (row + column == side - 1)
        return torch.ones(side, side, dtype=torch.bool)
