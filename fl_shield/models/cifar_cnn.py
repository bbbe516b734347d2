"""The CIFAR-10 CNN of Carlini and Wagner (2017, table I)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from fl_shield.data.task import TaskSpec
from fl_shield.models.check import check_images


class CifarCnn(nn.Module):
    """Two blocks of two 3x3 convolutions with max pooling, two hidden layers with dropout.

    Args:
        spec: The task; 3x32x32 in the paper.
        width: Filters of the first block, half those of the second; 64 in the paper.
        hidden: Units of both hidden layers; 256 in the paper.
        dropout: Share of hidden units dropped in training; 0.5 in the paper.
    """

    def __init__(
        self, spec: TaskSpec, width: int = 64, hidden: int = 256, dropout: float = 0.5
    ) -> None:
        super().__init__()
        channels, height, rows = check_images("cifar_cnn", spec, 16)
        sides = [((side - 4) // 2 - 4) // 2 for side in (height, rows)]
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 3), nn.ReLU(),
            nn.Conv2d(width, width, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3), nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * width * sides[0] * sides[1], hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(hidden, spec.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(batch, classes)` of `(batch, channels, height, width)` in [0, 1]."""
        return cast("Tensor", self.head(self.features(images)))
