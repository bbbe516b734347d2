"""Probes for a server without any clean sample: noise of the shape that the model takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.probes.probe_set import ProbeSet

SAMPLES = 16

WEAKER = (
    "The shield has no clean samples and looks at clients through noise only: it sees less, its "
    "calibration was made with clean samples, and its shadows need some. Hold a few as soon as "
    "you can."
)
"""What a shield with such probes says at its start."""


class NoiseProbes(ProbeSet):
    """Probes that are noise: unlabelled, and known to be no samples of the task.

    Args:
        shape: Shape of one input: `(channels, height, width)`, `(features,)`, or `(length,)` of
            token ids.
        samples: How many.
        low: Smallest value of a float input.
        high: Largest value.
        vocab_size: Number of token ids, for texts; 0 for float inputs.
        seed: Seed of the draws.

    Raises:
        ConfigurationError: naming every argument that is out of range.
    """

    def __init__(
        self,
        shape: Sequence[int],
        samples: int = SAMPLES,
        *,
        low: float = 0.0,
        high: float = 1.0,
        vocab_size: int = 0,
        seed: int = 0,
    ) -> None:
        size = tuple(shape)
        problems = []
        if not size or min(size) < 1:
            problems.append(expected("shape", "the shape of one input, such as (1, 28, 28)", size))
        if not low < high:
            problems.append(expected("low", f"below high ({high:g})", low))
        if vocab_size < 0:
            problems.append(expected("vocab_size", "0 or more", vocab_size))
        raise_all(problems, ConfigurationError)
        generator = torch.Generator().manual_seed(seed)
        if vocab_size:
            inputs = torch.randint(vocab_size, (samples, *size), generator=generator)
        else:
            inputs = low + (high - low) * torch.rand((samples, *size), generator=generator)
        super().__init__(inputs)
