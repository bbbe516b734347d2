"""A small CNN for small images, 8x8 pixels and up."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from fl_shield.data.task import TaskSpec
from fl_shield.models.check import check_images


class DigitsCnn(nn.Module):
    """Two 3x3 convolutions, each halved by pooling, and one hidden layer.

    Args:
        spec: The task.
        width: Filters of the first convolution; the second has twice as many.
        hidden: Penultimate features.
    """

    def __init__(self, spec: TaskSpec, width: int = 16, hidden: int = 64) -> None:
        super().__init__()
        channels, height, rows = check_images("digits_cnn", spec, 4)
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * width * (height // 4) * (rows // 4), hidden), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(hidden, spec.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(batch, classes)` of `(batch, channels, height, width)` in [0, 1]."""
        return cast("Tensor", self.head(self.features(images)))
