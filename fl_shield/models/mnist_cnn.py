"""The MNIST CNN of BadNets (Gu, Dolan-Gavitt and Garg, 2017, table 1)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from fl_shield.data.task import TaskSpec
from fl_shield.models.check import check_images


class MnistCnn(nn.Module):
    """16 and 32 filters of 5x5 with ReLU and average pooling, 512 hidden units.

    Args:
        spec: The task; 1x28x28 in the paper.
        hidden: Penultimate features; 512 in the paper.
    """

    def __init__(self, spec: TaskSpec, hidden: int = 512) -> None:
        super().__init__()
        channels, height, width = check_images("mnist_cnn", spec, 16)
        flat = 32 * (((height - 4) // 2 - 4) // 2) * (((width - 4) // 2 - 4) // 2)
        self.features = nn.Sequential(
            nn.Conv2d(channels, 16, 5), nn.ReLU(), nn.AvgPool2d(2),
            nn.Conv2d(16, 32, 5), nn.ReLU(), nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(flat, hidden), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(hidden, spec.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(batch, classes)` of `(batch, channels, height, width)` in [0, 1]."""
        return cast("Tensor", self.head(self.features(images)))
