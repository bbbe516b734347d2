"""Gaussian noise: an untargeted attack that any defence should stop, as a check of sanity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fl_shield.attacks.model_poisoning import NoModelPoisoning, Parameters, movable
from fl_shield.errors import expected, raise_all


@dataclass(frozen=True)
class GaussianNoise(NoModelPoisoning):
    """Sends `G + N(0, σ²)` in the place of what it trained (Blanchard et al., NeurIPS 2017).

    The attacker knows the global model only. Noise follows the seed of the local training.

    Attributes:
        deviation: σ, in the units of the weights.

    Raises:
        ConfigurationError: if `deviation` is not positive.
    """

    deviation: float = 2.0

    def __post_init__(self) -> None:
        """Check the deviation."""
        if not self.deviation > 0:
            raise_all([expected("model_poisoning.deviation", "above 0", self.deviation)])

    def __str__(self) -> str:
        return f"Gaussian noise {self.deviation:g}"

    def craft(self, reference: Parameters, trained: Parameters) -> dict[str, Tensor]:
        """Return the global parameters with noise."""
        crafted = dict(trained)
        for name in movable(trained):
            noise = self.deviation * torch.randn_like(reference[name])
            crafted[name] = reference[name] + noise
        return crafted
