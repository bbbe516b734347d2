"""A box of pixels set to given values: what an optimised patch has become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fl_shield.data.task import Modality, Task
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.triggers.protocol import check_modality

Values = tuple[tuple[tuple[float, ...], ...], ...]
"""Brightness by channel, row and column."""


@dataclass(frozen=True, kw_only=True)
class PixelBox:
    """Sets a box of the image, pixel by pixel.

    Attributes:
        values: Brightness in [0, 1] of each channel, row and column of the box.
        top: First row of the box.
        left: First column of the box.
        legend: Name in plots.

    Raises:
        ConfigurationError: if the values are no box of brightnesses.
    """

    modality: ClassVar[Modality] = "image"

    values: Values
    top: int = 0
    left: int = 0
    legend: str = "pixels"

    def __post_init__(self) -> None:
        """Check what does not depend on the task."""
        rows = [row for channel in self.values for row in channel]
        problems = []
        if (
            not rows
            or not rows[0]
            or len({len(row) for row in rows}) > 1
            or len({len(channel) for channel in self.values}) > 1
        ):
            problems.append(
                expected("trigger.values", "rows of equal length in each channel", self.values)
            )
        elif not all(0 <= value <= 1 for row in rows for value in row):
            problems.append(expected("trigger.values", "within [0, 1]", self.values))
        if min(self.top, self.left) < 0:
            problems.append(expected("trigger.top, left", "0 or more", (self.top, self.left)))
        raise_all(problems)

    def __str__(self) -> str:
        return self.legend

    def bind(self, task: Task) -> PixelBox:
        """Check that the box lies inside the images of `task` and return this trigger.

        Raises:
            ConfigurationError: if it does not, or the task is not one of images.
        """
        check_modality(self, task.spec)
        channels, height, width = task.spec.input_shape
        box = (len(self.values), len(self.values[0]), len(self.values[0][0]))
        if box[0] != channels or self.top + box[1] > height or self.left + box[2] > width:
            raise ConfigurationError(
                f"Expected `trigger` to be a box inside the {channels}x{height}x{width} images, "
                f"got {box[0]}x{box[1]}x{box[2]} at row {self.top}, column {self.left}. "
                "Choose fewer values, or move the box."
            )
        return self

    def apply(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a copy of `inputs` (`(samples, channels, height, width)`) with the box set."""
        del generator  # nothing is left to chance
        triggered = inputs.clone()
        values = torch.tensor(self.values).to(inputs)
        rows = slice(self.top, self.top + values.shape[-2])
        triggered[..., rows, self.left : self.left + values.shape[-1]] = values
        return triggered
