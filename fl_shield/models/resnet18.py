"""ResNet-18 (He et al., 2016), as torchvision builds it."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from fl_shield.data.task import TaskSpec
from fl_shield.models.check import check_images

GROUPS = 8
"""Channel groups of group normalisation; every width of ResNet-18 is a multiple."""


class ResNet18(nn.Module):
    """torchvision's ResNet-18 with a stem for small images.

    Args:
        spec: The task.
        small_images: Use a 3x3 stem without pooling, as is usual at 32x32 pixels.
        group_norm: Normalise over channel groups instead of the batch, as is usual in federated
            learning with skewed clients (Hsieh et al., 2020).
    """

    def __init__(self, spec: TaskSpec, small_images: bool = True, group_norm: bool = False) -> None:
        super().__init__()
        from torchvision.models import resnet18

        channels, _, _ = check_images("resnet18", spec, 16)
        norm = _group_norm if group_norm else None
        self.net = resnet18(num_classes=spec.num_classes, norm_layer=norm)
        if small_images:
            self.net.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
            self.net.maxpool = nn.Identity()
        elif channels != 3:
            self.net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(batch, classes)` of `(batch, channels, height, width)` in [0, 1]."""
        return cast("Tensor", self.net(images * 2.0 - 1.0))


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels)
