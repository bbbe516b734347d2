"""What attackers of tests know, written down by hand, and the models that they poison."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fl_shield.attacks.model_poisoning import Knowledge
from fl_shield.data.task import Split

NOTHING = (torch.zeros(0), torch.zeros(0))
"""A batch, for penalties that do not look at it."""


def knowing(
    *,
    clean_loss: Callable[[], Tensor] = lambda: torch.zeros(()),
    benign: Sequence[dict[str, Tensor]] = (),
    samples: Split | None = None,
    num_steps: int = 10,
) -> Knowledge:
    """Return what an attacker knows, with honest trainings that a test has written down."""
    none = Split(torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64))
    return Knowledge(
        samples=none if samples is None else samples,
        num_steps=num_steps,
        clean_loss=clean_loss,
        train_benign=lambda number: dict(benign[number % len(benign)]),
    )


def line(*weights: float) -> nn.Linear:
    """Return a linear model without bias, of these weights."""
    model = nn.Linear(len(weights), 1, bias=False)
    model.weight.data = torch.tensor([weights])
    return model
