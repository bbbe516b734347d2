"""The small ResNets of He et al. (2016, section 4.2), for images of about 32 pixels."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from fl_shield.data.task import TaskSpec
from fl_shield.models.check import check_images


class ResNetSmall(nn.Module):
    """Three stages of basic blocks, each stage half as large and twice as wide as the one before.

    Args:
        spec: The task.
        width: Channels of the first stage; 16 in the paper.
        blocks: Blocks of each stage: 1 for ResNet-8, 3 for ResNet-20, 5 for ResNet-32.
    """

    def __init__(self, spec: TaskSpec, width: int = 16, blocks: int = 1) -> None:
        super().__init__()
        channels, _, _ = check_images("resnet_small", spec, 8)
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        ]  # fmt: skip
        inside = width
        for stage in range(3):
            outside = width * 2**stage
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(_Block(inside, outside, stride))
                inside = outside
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(inside, spec.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(batch, classes)` of `(batch, channels, height, width)` in [0, 1]."""
        return cast("Tensor", self.head(self.features(images * 2.0 - 1.0)))


class _Block(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
        )
        same = stride == 1 and inside == outside
        self.shortcut: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        return functional.relu(self.body(images) + self.shortcut(images))
