"""A little is enough: a backdoor that stays within the spread of the cohort in each parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import NormalDist

import torch
from torch import Tensor, nn

from fl_shield.attacks.model_poisoning import Knowledge, NoModelPoisoning, Parameters
from fl_shield.errors import ConfigurationError, expected, raise_all


@dataclass(frozen=True)
class LittleIsEnough(NoModelPoisoning):
    """Keeps every parameter within mean ± z · deviation (Baruch et al., NeurIPS 2019).

    What the attacker knows: the model that it received, and honest trainings from it that it runs
    itself, on its own samples and on those of the clients that it colludes with (see
    `Knowledge.train_benign`). From these alone it estimates mean and standard deviation of the
    cohort; it sees no benign client's samples or weights. The paper's attacker does the same with
    the samples of the workers that it has corrupted.

    Differs from the paper: training is projected into the box after each step, where the paper
    adds a penalty on the distance and clips once at the end; of the few steps of a local training
    this makes far more. A boost uses up what is left of the box, at a price in main accuracy.

    Attributes:
        z: Half the width of the box, in standard deviations; `largest_z` has the paper's.
        boost: Factor of the final deviation from the mean, before it is clipped once more.
        num_shadows: Honest trainings that mean and deviation are taken from.
        centre: Estimated mean of each parameter; learned when a local training begins.
        reach: `z` times the estimated deviation of each parameter; learned as well.

    Raises:
        ConfigurationError: if a setting is out of range.
    """

    z: float = 3.0
    boost: float = 1.0
    num_shadows: int = 5
    centre: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    reach: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        problems = []
        if not self.z >= 0:
            problems.append(expected("model_poisoning.z", "0 or more", self.z))
        if not self.boost > 0:
            problems.append(expected("model_poisoning.boost", "above 0", self.boost))
        if self.num_shadows < 2:
            problems.append(
                expected(
                    "model_poisoning.num_shadows",
                    "2 or more",
                    self.num_shadows,
                    "One training has no spread.",
                )
            )
        raise_all(problems)

    def __str__(self) -> str:
        return f"little is enough, z {self.z:g}"

    def begin(self, model: nn.Module, knowledge: Knowledge) -> LittleIsEnough:
        """Return the attack with the box that honest trainings span."""
        shadows = [knowledge.train_benign(number) for number in range(self.num_shadows)]
        stacks = {name: torch.stack([shadow[name] for shadow in shadows]) for name in shadows[0]}
        return replace(
            self,
            centre={name: stack.mean(dim=0) for name, stack in stacks.items()},
            # Of the shadows as they are, not as a sample: the paper's σ.
            reach={n: self.z * stack.std(dim=0, correction=0) for n, stack in stacks.items()},
        )

    @torch.no_grad()
    def after_step(self, model: nn.Module, reference: Parameters, step: int) -> None:
        """Project the parameters into the box."""
        parameters = dict(model.named_parameters())
        for name in self.centre:
            parameters[name].copy_(self._clipped(name, parameters[name], 1.0))

    def craft(self, reference: Parameters, trained: Parameters) -> dict[str, Tensor]:
        """Return the point of the box nearest to the boosted parameters."""
        own = {name: self._clipped(name, trained[name], self.boost) for name in self.centre}
        return dict(trained) | own

    def _clipped(self, name: str, parameter: Tensor, boost: float) -> Tensor:
        centre, reach = self.centre[name], self.reach[name]
        wanted = boost * (parameter - centre)
        return centre + torch.minimum(torch.maximum(wanted, -reach), reach)


def largest_z(num_clients: int, num_attackers: int) -> float:
    """Return z_max of Baruch et al. (2019): what a majority rule cannot tell apart.

    With n clients, m of them corrupted, s = ⌊n / 2 + 1⌋ - m honest ones have to stand further from
    the mean than the attackers: z_max is the quantile of the normal distribution at
    (n - m - s) / (n - m).

    Raises:
        ConfigurationError: if the attackers are none, or a majority by themselves.
    """
    supporters = math.floor(num_clients / 2 + 1) - num_attackers
    if num_attackers < 1 or supporters < 1:
        raise ConfigurationError(
            expected(
                "num_attackers", f"from 1 to {num_clients // 2} of {num_clients}", num_attackers
            )
        )
    honest = num_clients - num_attackers
    return NormalDist().inv_cdf((honest - supporters) / honest)
