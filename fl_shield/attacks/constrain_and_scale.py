"""Constrain-and-scale: stay near the global model while training, then boost the update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_shield.attacks.model_poisoning import Parameters, distance
from fl_shield.attacks.model_replacement import ModelReplacement
from fl_shield.errors import expected, raise_all, unknown

Anomaly = Literal["l2", "cosine"]


@dataclass(frozen=True)
class ConstrainAndScale(ModelReplacement):
    """Trains on `alpha · L_class + (1 - alpha) · L_anomaly`, then boosts the update.

    From Bagdasaryan et al., How To Backdoor Federated Learning, AISTATS 2020, eq. 4. `L_anomaly`
    is differentiable: a part of the objective, not a constant added to its value.

    Attributes:
        boost: Factor of the update; 1 sends it as trained.
        alpha: Weight of the classification loss, in (0, 1].
        anomaly: `"l2"`: distance of the parameters from the global model; `"cosine"`: one minus
            the cosine of the two parameter vectors.

    Raises:
        ConfigurationError: if a setting is out of range.
    """

    alpha: float = 0.7
    anomaly: Anomaly = "l2"

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        problems = []
        if not 0 < self.alpha <= 1:
            problems.append(expected("model_poisoning.alpha", "above 0, at most 1", self.alpha))
        if self.anomaly not in get_args(Anomaly):
            problems.append(unknown("model_poisoning.anomaly", self.anomaly, get_args(Anomaly)))
        raise_all(problems)

    def __str__(self) -> str:
        return f"constrained ({self.anomaly}), boosted x{self.boost:g}"

    @property
    def task_weight(self) -> float:
        """Weight `alpha` of the classification loss."""
        return self.alpha

    def penalty(
        self, model: nn.Module, reference: Parameters, inputs: Tensor, labels: Tensor
    ) -> Tensor:
        """Return `(1 - alpha) · L_anomaly`, a scalar with a gradient."""
        parameters = dict(model.named_parameters())
        current = {name: parameters[name] for name in reference}
        if self.anomaly == "l2":
            return (1 - self.alpha) * distance(reference, current)
        flat = torch.cat([current[name].flatten() for name in reference])
        origin = torch.cat([reference[name].flatten() for name in reference])
        return (1 - self.alpha) * (1 - functional.cosine_similarity(flat, origin, dim=0))
