"""SIG: a faint sinusoid across the whole image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fl_shield.data.task import Modality, Task
from fl_shield.errors import expected, raise_all
from fl_shield.triggers.protocol import check_modality


@dataclass(frozen=True, kw_only=True)
class Sig:
    """Adds `delta · sin(2π · column · frequency / width)`, clipped to [0, 1].

    From Barni, Kallas and Tondi, A New Backdoor Attack in CNNs by Training Set Corruption, ICIP
    2019, section 3.1. Its clean-label form takes the goal `CleanLabel`.

    Attributes:
        delta: Height of the wave, in (0, 1]; 40 of 255 in the paper.
        frequency: Periods over the width of the image.

    Raises:
        ConfigurationError: if a setting is out of range.
    """

    modality: ClassVar[Modality] = "image"

    delta: float = 40 / 255
    frequency: float = 6.0

    def __post_init__(self) -> None:
        """Check the settings."""
        problems = []
        if not 0 < self.delta <= 1:
            problems.append(expected("trigger.delta", "above 0 and at most 1", self.delta))
        if not self.frequency > 0:
            problems.append(expected("trigger.frequency", "above 0", self.frequency))
        raise_all(problems)

    def __str__(self) -> str:
        return f"SIG {self.delta * 255:.0f}/255"

    def bind(self, task: Task) -> Sig:
        """Check that the wave can be seen in the images of `task` and return this trigger.

        Raises:
            ConfigurationError: if the task is not one of images, or they are so narrow that the
                wave is zero at every pixel.
        """
        check_modality(self, task.spec)
        width = task.spec.input_shape[-1]
        if bool((self._wave(width).abs() < 1e-6).all()):
            raise_all(
                [
                    expected(
                        "trigger.frequency",
                        f"one whose wave is not zero at each of the {width} columns",
                        self.frequency,
                        "Choose one that is no multiple of half the width, for example 1.",
                    )
                ]
            )
        return self

    def apply(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return `inputs` (`(samples, channels, height, width)`) with the wave added."""
        del generator  # nothing is left to chance
        return (inputs + self._wave(int(inputs.shape[-1])).to(inputs)).clamp(0, 1)

    def _wave(self, width: int) -> Tensor:
        columns = torch.arange(width, dtype=torch.float64)
        wave: Tensor = self.delta * torch.sin(2 * math.pi * columns * self.frequency / width)
        return wave
