"""WaNet: a smooth warp of the whole image, the same for all images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from fl_shield.data.task import Modality, Task
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.triggers.protocol import check_modality, seeded


@dataclass(frozen=True, kw_only=True)
class Warp:
    """Moves every pixel a little, by a fixed smooth field (Nguyen and Tran, WaNet, ICLR 2021).

    A random field on a `grid` x `grid` lattice, divided by its mean absolute value, is scaled up to
    the image by bicubic interpolation and multiplied by `strength` (section 3). As in the authors'
    program, one unit of it is `1/height` of a coordinate that runs from -1 to 1: half a pixel.
    Images are sampled bilinearly along the moved grid.

    *Noise mode* (section 3): beside each poisoned sample, `decoy_share` others are warped by the
    field plus a random one of their own, uniform within one unit, and keep their labels. So the
    model has to learn this very field, not that an image is warped.

    Attributes:
        grid: Points of the lattice along a side, k in the paper.
        strength: Mean displacement in units of half a pixel, s in the paper (0.5 there).
        decoy_share: Noisy samples for each poisoned one, as far as there are samples that are not
            poisoned (2 in the paper); 0 for no noise mode.
        seed: Seed of the field.

    Raises:
        ConfigurationError: if a setting is out of range.
    """

    modality: ClassVar[Modality] = "image"

    grid: int = 4
    strength: float = 0.5
    decoy_share: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        problems = []
        if self.grid < 2:
            problems.append(expected("trigger.grid", "at least 2 points", self.grid))
        if not self.strength > 0:
            problems.append(expected("trigger.strength", "above 0", self.strength))
        if not self.decoy_share >= 0:
            problems.append(expected("trigger.decoy_share", "0 or more", self.decoy_share))
        raise_all(problems)

    def __str__(self) -> str:
        return f"warp k={self.grid} s={self.strength:g}"

    def bind(self, task: Task) -> Warp:
        """Check that the lattice is not finer than the images of `task` and return this trigger.

        Raises:
            ConfigurationError: if it is, or the task is not one of images.
        """
        check_modality(self, task.spec)
        side = min(task.spec.input_shape[-2:])
        if self.grid > side:
            raise ConfigurationError(
                expected("trigger.grid", f"at most the {side} pixels of a side", self.grid)
            )
        return self

    def apply(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the warped images, shape and dtype kept; chance plays no part."""
        return self._sample(inputs, self._field(inputs)[None])

    def decoy(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the images warped by the field and by random noise, each by its own."""
        generator = seeded(generator)
        shape = (len(inputs), *inputs.shape[-2:], 2)
        noise = torch.rand(shape, generator=generator, device=generator.device).to(inputs) * 2 - 1
        return self._sample(inputs, self._field(inputs)[None] + noise)

    def _field(self, inputs: Tensor) -> Tensor:
        """Return the displacements `(height, width, 2)`, columns first, mean about `strength`."""
        source = torch.Generator().manual_seed(self.seed)
        lattice = torch.rand(1, 2, self.grid, self.grid, generator=source) * 2 - 1
        field = functional.interpolate(
            lattice / lattice.abs().mean(),
            size=(int(inputs.shape[-2]), int(inputs.shape[-1])),
            mode="bicubic",
            align_corners=True,
        )
        return self.strength * field[0].permute(1, 2, 0).to(inputs)

    def _sample(self, inputs: Tensor, field: Tensor) -> Tensor:
        """Return `inputs` at the places that `field` (`(samples or 1, height, width, 2)`) says."""
        height, width = inputs.shape[-2:]
        rows = torch.linspace(-1, 1, height, dtype=inputs.dtype, device=inputs.device)
        columns = torch.linspace(-1, 1, width, dtype=inputs.dtype, device=inputs.device)
        identity = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
        places = (identity + field / height).clamp(-1, 1).expand(len(inputs), -1, -1, -1)
        if not len(inputs):
            return inputs.clone()
        return functional.grid_sample(inputs, places, align_corners=True).clamp(0, 1)
