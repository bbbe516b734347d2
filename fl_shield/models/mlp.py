"""A multi-layer perceptron on flattened images."""

from __future__ import annotations

import math
from typing import cast

from torch import Tensor, nn

from fl_shield.data.task import TaskSpec
from fl_shield.models.check import check_images


class Mlp(nn.Module):
    """Two hidden layers of ReLU units.

    Args:
        spec: The task.
        hidden: Units of each hidden layer.
    """

    def __init__(self, spec: TaskSpec, hidden: int = 128) -> None:
        super().__init__()
        size = math.prod(check_images("mlp", spec, 1))
        self.features = nn.Sequential(
            nn.Flatten(), nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.head = nn.Linear(hidden, spec.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(batch, classes)` of `(batch, channels, height, width)` in [0, 1]."""
        return cast("Tensor", self.head(self.features(images)))
