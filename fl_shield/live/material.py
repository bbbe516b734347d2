"""What a shadow trains on: skewed, mixed draws from half of the server's clean samples.

Honest clients differ by their data. A handful of samples holds few differences, so that each shadow
gets a half of its own, its own class shares, and samples that are mixed with each other (mixup for
numbers, Zhang et al., 2018; crossover for tokens), images also moved by a pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fl_shield.data.task import Split
from fl_shield.errors import ConfigurationError, expected
from fl_shield.probes.probe_set import ProbeSet

MAX_SAMPLES = 64
"""Clean samples that shadows learn from; more add time and little variety."""

DRAWN = 96
"""Samples that a shadow trains on, drawn with repetition."""

SKEW = (0.3, 5.0)
"""Concentration of the class shares (Dirichlet), log-uniform."""

MIXED = (0.65, 1.0)
"""Weight of a sample in its mixture with another one."""


@dataclass(frozen=True)
class Material:
    """The clean samples that shadows learn from.

    Attributes:
        inputs: `(samples, …)` floats, or `(samples, length)` int64 token ids.
        labels: `(samples,)` int64 classes.
    """

    inputs: Tensor
    labels: Tensor

    @classmethod
    def of(cls, probes: ProbeSet) -> Material:
        """Return the material that a probe set makes, on the CPU.

        Raises:
            ConfigurationError: if the probes are unlabelled, or are called by several names.
        """
        if not isinstance(probes.inputs, Tensor):
            raise ConfigurationError(
                expected(
                    "probes.inputs",
                    "one tensor, for shadows to be trained on",
                    f"tensors by name ({', '.join(probes.inputs)})",
                    "Leave `shadows` off for models that are called by name.",
                )
            )
        if probes.labels is None:
            raise ConfigurationError(
                "Shadows are trained by the server and need labels, but the probes have none. "
                "Pass probes=(inputs, labels), or leave `shadows` off."
            )
        inputs = probes.inputs[:MAX_SAMPLES].detach().cpu()
        return cls(
            inputs.float() if inputs.is_floating_point() else inputs,
            probes.labels[:MAX_SAMPLES].detach().cpu(),
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def distinct(self) -> int:
        """How many different halves there are to draw; no more shadows are independent."""
        return math.comb(len(self), half_of(len(self)))

    def draw(self, rng: np.random.Generator) -> Split:
        """Return the samples of one shadow.

        Args:
            rng: Source of chance; the same state gives the same samples.
        """
        half = rng.permutation(len(self))[: half_of(len(self))]
        labels = self.labels.numpy()[half]
        classes, counts = np.unique(labels, return_counts=True)
        low, high = np.log(SKEW)
        shares = rng.dirichlet(np.full(len(classes), np.exp(rng.uniform(low, high)))) + 1e-3
        places = np.searchsorted(classes, labels)
        weights = shares[places] / counts[places]
        chosen = half[rng.choice(len(half), DRAWN, p=weights / weights.sum())]
        return Split(varied(self.inputs[chosen], rng), self.labels[chosen])


def half_of(samples: int) -> int:
    """Return how many of `samples` a shadow draws from."""
    return max(2, math.ceil(samples / 2))


def varied(inputs: Tensor, rng: np.random.Generator) -> Tensor:
    """Return samples mixed with each other, images also moved; shape, dtype and range stay.

    Args:
        inputs: `(samples, …)` floats or token ids; left as they are.
        rng: Source of chance.
    """
    others = inputs[torch.from_numpy(rng.permutation(len(inputs)))]
    own = rng.uniform(*MIXED, len(inputs))
    if not inputs.is_floating_point():
        keep = rng.random(tuple(inputs.shape)) < _column(own, inputs)
        return torch.where(torch.from_numpy(keep), inputs, others)
    share = torch.from_numpy(_column(own, inputs)).to(inputs.dtype)
    mixed = share * inputs + (1 - share) * others
    return _moved(mixed, rng) if inputs.dim() == 4 else mixed


def _moved(images: Tensor, rng: np.random.Generator) -> Tensor:
    steps = rng.integers(-1, 2, (len(images), 2)).tolist()
    return torch.stack(
        [torch.roll(image, step, (1, 2)) for image, step in zip(images, steps, strict=True)]
    )


def _column(values: NDArray[np.float64], like: Tensor) -> NDArray[np.float64]:
    return values.reshape(-1, *[1] * (like.dim() - 1))
