"""Images in the layout that a model reads fastest, wherever it can be had."""

import pytest
import torch
from torch import Tensor, nn

from fl_shield.activations.layout import fastest_layout, in_layout


class Viewed(nn.Module):
    """Flattens as many do: `view` refuses channels-last activations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(64, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(images).view(len(images), -1))
        return logits


class MemoryOrder(nn.Module):
    """Says something else about the same images in another layout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 6)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.conv(images).flatten(1) + float(images.stride(1))
        return logits


def convolutions(channels: int) -> nn.Module:
    pooled = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 4, 2))
    return nn.Sequential(*pooled, nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize("channels", [1, 3])
def test_convolutions_get_images_with_the_channels_last(channels: int) -> None:
    model, images = convolutions(channels).eval(), torch.rand(5, channels, 6, 6)
    layout = fastest_layout(model, images)
    assert layout is torch.channels_last
    placed = in_layout(images, layout)
    assert isinstance(placed, Tensor)
    assert placed.stride(1) == 1
    assert torch.equal(placed, images)
    assert in_layout(placed, layout) is placed
    # The convolution takes the layout over, even of grey images, which are in both.
    first = next(iter(model.children()))
    assert first(placed).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(placed), model(images))


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (Viewed(), torch.rand(5, 3, 6, 6)),
        (MemoryOrder(), torch.rand(5, 3, 6, 6)),
        (nn.Sequential(nn.Flatten(), nn.Linear(108, 2)), torch.rand(5, 3, 6, 6)),
        (nn.Linear(6, 2), torch.rand(5, 6)),
    ],
)
def test_everything_else_keeps_its_layout(model: nn.Module, inputs: Tensor) -> None:
    layout = fastest_layout(model.eval(), inputs)
    assert layout is torch.contiguous_format
    assert in_layout(inputs, layout) is inputs
    named = {"input_ids": torch.ones(2, 3, dtype=torch.int64)}
    assert in_layout(named, torch.channels_last) is named
