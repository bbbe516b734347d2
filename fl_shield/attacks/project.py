"""Projection: the attacker trains inside a ball around the global model, to hide its size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fl_shield.attacks.model_poisoning import NoModelPoisoning, Parameters, distance, movable
from fl_shield.errors import expected, raise_all


@dataclass(frozen=True)
class Project(NoModelPoisoning):
    """Projected gradient descent onto an L2 ball (Wang et al., Attack of the Tails, 2020, sec. 3).

    Attributes:
        radius: Largest L2 distance of the parameters from the global model.
        every: Steps between projections; the update sent is projected whatever this is.

    Raises:
        ConfigurationError: if a setting is out of range.
    """

    radius: float = 1.0
    every: int = 1

    def __post_init__(self) -> None:
        """Check the settings."""
        problems = []
        if not self.radius > 0:
            problems.append(expected("model_poisoning.radius", "above 0", self.radius))
        if self.every < 1:
            problems.append(expected("model_poisoning.every", "1 or more", self.every))
        raise_all(problems)

    def __str__(self) -> str:
        return f"projected to norm {self.radius:g}"

    @torch.no_grad()
    def after_step(self, model: nn.Module, reference: Parameters, step: int) -> None:
        """Project the parameters of every `every`-th step."""
        if step % self.every:
            return
        parameters = dict(model.named_parameters())
        trained = {name: parameters[name] for name in reference}
        for name, tensor in self.craft(reference, trained).items():
            parameters[name].copy_(tensor)

    def craft(self, reference: Parameters, trained: Parameters) -> dict[str, Tensor]:
        """Return the point of the ball nearest to `trained`."""
        length = float(distance(reference, trained))
        if length <= self.radius:
            return dict(trained)
        share = self.radius / length
        moved = {
            name: reference[name] + share * (trained[name] - reference[name])
            for name in movable(trained)
        }
        return dict(trained) | moved
