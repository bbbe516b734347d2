"""A random pattern mixed into a box of the image: one draw of the Jumbo distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from fl_shield.data.task import Modality, Task
from fl_shield.errors import ConfigurationError, expected, raise_all, unknown
from fl_shield.triggers.protocol import check_modality

Noise = Literal["binary", "colour"]


@dataclass(frozen=True, kw_only=True)
class BoxPattern:
    """`x' = (1-m)·x + m·((1-a)·t + a·x)` with `m` a box (MBDS eq. 4; Xu et al., MNTD, eq. 4).

    Attributes:
        size: Side of the box in pixels; None for the whole image.
        top: First row of the box.
        left: First column of the box.
        opacity: Share of the pattern in the box, in (0, 1]. This is `1 - a`: in the equation `a`
            is the transparency, while MNTD's program draws the opacity under the same name.
        noise: `"binary"`: the same random black and white pixels in all channels; `"colour"`:
            uniform noise of random contrast, each channel its own.
        seed: Seed of the pattern.

    Raises:
        ConfigurationError: if a setting is impossible whatever the task.
    """

    modality: ClassVar[Modality] = "image"

    size: int | None
    top: int = 0
    left: int = 0
    opacity: float = 1.0
    noise: Noise = "binary"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what does not depend on the task."""
        problems = []
        if self.size is not None and self.size < 1:
            problems.append(expected("trigger.size", "at least one pixel, or null", self.size))
        if min(self.top, self.left) < 0:
            problems.append(expected("trigger.top, left", "0 or more", (self.top, self.left)))
        if not 0 < self.opacity <= 1:
            problems.append(expected("trigger.opacity", "above 0 and at most 1", self.opacity))
        if self.noise not in get_args(Noise):
            problems.append(unknown("trigger.noise", self.noise, get_args(Noise)))
        raise_all(problems)

    def __str__(self) -> str:
        size = "whole image" if self.size is None else f"{self.size}x{self.size}"
        return f"{self.noise} pattern {size}, {self.opacity:.0%}"

    def bind(self, task: Task) -> BoxPattern:
        """Check that the box lies inside the images of `task` and return this trigger.

        Raises:
            ConfigurationError: if it does not, or the task is not one of images.
        """
        check_modality(self, task.spec)
        height, width = task.spec.input_shape[-2:]
        side = 0 if self.size is None else self.size
        if self.top + side > height or self.left + side > width:
            raise ConfigurationError(
                f"Expected `trigger` to be a box inside the {height}x{width} images, got {side}x"
                f"{side} pixels at row {self.top}, column {self.left}. "
                "Choose a smaller size, or move the box."
            )
        return self

    def apply(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a copy of `inputs` (`(samples, channels, height, width)`) with the pattern."""
        del generator  # the pattern is fixed by the seed
        triggered = inputs.clone()
        if self.size is None:
            box = triggered
        else:
            rows = slice(self.top, self.top + self.size)
            box = triggered[..., rows, self.left : self.left + self.size]
        pattern = self._pattern(*box.shape[1:]).to(inputs)
        box.copy_(self.opacity * pattern + (1 - self.opacity) * box)
        return triggered

    def _pattern(self, channels: int, height: int, width: int) -> Tensor:
        """Return the `(channels, height, width)` pattern in [0, 1]."""
        source = torch.Generator().manual_seed(self.seed)
        if self.noise == "colour":
            contrast = torch.rand((), generator=source)
            noise = torch.rand(channels, height, width, generator=source)
            return (noise * (1 + 2 * contrast) - contrast).clamp(0, 1)
        area = height * width
        ones = int(torch.randint(1, max(area, 2), (), generator=source))  # 1 to area - 1
        flat = torch.zeros(area)
        flat[torch.randperm(area, generator=source)[:ones]] = 1.0
        return flat.reshape(1, height, width).expand(channels, -1, -1)
