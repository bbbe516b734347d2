"""Neurotoxin: plant the backdoor where benign clients hardly move, so that it lasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from fl_shield.attacks.model_poisoning import Knowledge, NoModelPoisoning
from fl_shield.errors import expected, raise_all


@dataclass(frozen=True)
class Neurotoxin(NoModelPoisoning):
    """Spares the coordinates with the largest gradients (Zhang et al., Neurotoxin, ICML 2022).

    Benign movement is estimated, as in the authors' program, by the gradient of the attacker's
    own clean data at the received model; the largest are chosen over all parameters together.
    Weight decay, if there is any, still moves spared coordinates.

    Attributes:
        spared_share: Share of the coordinates that is spared, in [0, 1); 0.05 in the paper.
        mask: For each parameter, where it may move; learned when a local training begins.

    Raises:
        ConfigurationError: if the share is out of range.
    """

    spared_share: float = 0.05
    mask: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the share."""
        if not 0 <= self.spared_share < 1:
            raise_all([expected("model_poisoning.spared_share", "in [0, 1)", self.spared_share)])

    def __str__(self) -> str:
        return f"Neurotoxin {self.spared_share:.0%}"

    def begin(self, model: nn.Module, knowledge: Knowledge) -> Neurotoxin:
        """Return the attack with the mask of this model and these data."""
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        gradients = torch.autograd.grad(
            knowledge.clean_loss(), [parameter for _, parameter in named], allow_unused=True
        )
        sizes = [
            (torch.zeros_like(parameter) if gradient is None else gradient.abs())
            for (_, parameter), gradient in zip(named, gradients, strict=True)
        ]
        flat = torch.cat([size.flatten() for size in sizes])
        free = torch.ones_like(flat, dtype=torch.bool)
        free[flat.topk(round(self.spared_share * len(flat))).indices] = False
        parts = torch.split(free, [size.numel() for size in sizes])
        mask = {
            name: part.view_as(parameter)
            for (name, parameter), part in zip(named, parts, strict=True)
        }
        return replace(self, mask=mask)

    def after_backward(self, model: nn.Module) -> None:
        """Zero the gradients of the spared coordinates."""
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and name in self.mask:
                parameter.grad.mul_(self.mask[name])
