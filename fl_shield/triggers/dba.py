"""DBA: a pattern of four bars that the attackers share out among themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from fl_shield.data.task import Modality, Task
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.triggers.pixels import is_length, pixels
from fl_shield.triggers.protocol import check_modality

NUM_PARTS = 4


@dataclass(frozen=True, kw_only=True)
class Dba:
    """Four bright bars, two by two (Xie et al., DBA, ICLR 2020, section 3).

    Each attacker trains on one bar, `part(i)`; at test time all four are shown. Lengths are in
    pixels if integers, shares of the image's width if floats below 1; the defaults give the
    paper's bars of 1 x 6 pixels, 3 apart, on images 32 pixels wide.

    Attributes:
        bar_width: Width of a bar.
        bar_height: Height of a bar.
        gap: Distance of the bars, across and down.
        position: `(row, column)` of the upper left pixel of the first bar.
        value: Brightness in [0, 1].
        only: Number of the one bar shown, None for all four.

    Raises:
        ConfigurationError: if a setting is impossible whatever the task.
    """

    modality: ClassVar[Modality] = "image"

    bar_width: int | float = 0.2
    bar_height: int | float = 1
    gap: int | float = 0.1
    position: tuple[int, int] = (0, 0)
    value: float = 1.0
    only: int | None = None

    def __post_init__(self) -> None:
        """Check what does not depend on the task."""
        object.__setattr__(self, "position", tuple(int(p) for p in self.position))
        problems = []
        for name, smallest in (("bar_width", 1), ("bar_height", 1), ("gap", 0)):
            length = getattr(self, name)
            if not is_length(length, smallest):
                problems.append(
                    expected(
                        f"trigger.{name}",
                        f"{smallest} or more pixels, or a share between 0 and 1",
                        length,
                    )
                )
        if len(self.position) != 2 or min(self.position) < 0:
            problems.append(
                expected("trigger.position", "a row and a column, both 0 or more", self.position)
            )
        if not 0 <= self.value <= 1:
            problems.append(expected("trigger.value", "within [0, 1]", self.value))
        if self.only is not None and not 0 <= self.only < NUM_PARTS:
            problems.append(expected("trigger.only", f"0 to {NUM_PARTS - 1}, or null", self.only))
        raise_all(problems)

    def __str__(self) -> str:
        return "DBA" if self.only is None else f"DBA part {self.only + 1}/{NUM_PARTS}"

    def part(self, index: int) -> Dba:
        """Return the trigger that shows bar number `index` alone; bars are dealt in turn."""
        return replace(self, only=index % NUM_PARTS)

    def bind(self, task: Task) -> Dba:
        """Check that the bars lie inside the images of `task` and return this trigger.

        Raises:
            ConfigurationError: if they do not, or the task is not one of images.
        """
        check_modality(self, task.spec)
        height, width = task.spec.input_shape[-2:]
        for top, left, bar_height, bar_width in self._bars(width):
            if top + bar_height > height or left + bar_width > width:
                raise ConfigurationError(
                    f"Expected the trigger to lie inside the {height}x{width} images, got a bar "
                    f"of {bar_height}x{bar_width} pixels at row {top}, column {left}. "
                    "Lower trigger.bar_width or trigger.gap, or move trigger.position."
                )
        return self

    def apply(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a copy of `inputs` (`(samples, channels, height, width)`) with the bars set."""
        del generator  # nothing is left to chance
        triggered = inputs.clone()
        for number, (top, left, height, width) in enumerate(self._bars(int(inputs.shape[-1]))):
            if self.only in (None, number):
                triggered[..., top : top + height, left : left + width] = self.value
        return triggered

    def _bars(self, image_width: int) -> list[tuple[int, int, int, int]]:
        """Return top row, left column, height and width of each bar."""
        width = pixels(self.bar_width, image_width)
        height = pixels(self.bar_height, image_width)
        gap = pixels(self.gap, image_width)
        top, left = self.position
        return [
            (top + row * (height + gap), left + column * (width + gap), height, width)
            for row in (0, 1)
            for column in (0, 1)
        ]
