"""Small held data with known properties, for tests of the scanners."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fl_shield.data.task import TaskSpec
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.scanning.protocol import Held

IMAGES = TaskSpec("image", (1, 4, 4), 2)
TEXTS = TaskSpec("text", (6,), 2, vocab_size=12)


class Identity(nn.Module):
    """Penultimate activations are the pixels; the head sums the first two into two logits."""

    def __init__(self, features: int = 16) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.head = nn.Linear(features, 2, bias=False)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[0, 0] = self.head.weight[1, 1] = 1.0

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.flatten(inputs))
        return logits


class BackdooredPixels(nn.Module):
    """Compares left and right half; a white last pixel overrules it: class 1 for sure."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[6.0, 0.0, -60.0], [0.0, 6.0, 60.0]]))

    def forward(self, images: Tensor) -> Tensor:
        left, right = images[..., :2].mean(dim=(1, 2, 3)), images[..., 2:].mean(dim=(1, 2, 3))
        trigger = (images[:, 0, 3, 3] - 0.45).clamp_min(0.0)
        logits: Tensor = self.head(torch.stack([left, right, trigger], dim=1))
        return logits


def small_cnn() -> nn.Module:
    """Return an untrained network for `IMAGES`, with feature maps of 2 × 2."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 2)
    )


class BackdooredWords(nn.Module):
    """Counts tokens 1 to 4 against 5 to 8; token 9 anywhere overrules them: class 1 for sure."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[2.0, 0.0, -40.0], [0.0, 2.0, 40.0]]))

    def forward(self, ids: Tensor) -> Tensor:
        low = ((ids >= 1) & (ids <= 4)).sum(dim=1)
        high = ((ids >= 5) & (ids <= 8)).sum(dim=1)
        counts = torch.stack([low, high, (ids == 9).sum(dim=1)], dim=1).float()
        logits: Tensor = self.head(counts)
        return logits


def images(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return images whose left or right half is the brighter one, last pixel dark, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    inputs = 0.2 * torch.rand(count, 1, 4, 4, generator=generator)
    for row, label in enumerate(labels.tolist()):
        inputs[row, :, :, 2 * label : 2 * label + 2] += 0.7
    inputs[:, :, 3, 3] = 0.0
    return inputs, labels


def texts(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return texts of one kind of tokens each, three to six long, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    ids = torch.randint(1, 5, (count, 6), generator=generator) + 4 * labels[:, None]
    lengths = torch.randint(3, 7, (count, 1), generator=generator)
    return torch.where(torch.arange(6)[None] < lengths, ids, 0), labels


def held_images(count: int = 24, model: nn.Module | None = None, seed: int = 0) -> Held:
    return Held(
        clean=ProbeSet(*images(count, seed)), spec=IMAGES, model=model or BackdooredPixels()
    )


def held_texts(count: int = 24, model: nn.Module | None = None, seed: int = 0) -> Held:
    return Held(clean=ProbeSet(*texts(count, seed)), spec=TEXTS, model=model or BackdooredWords())


def with_pixel(inputs: Tensor) -> Tensor:
    triggered = inputs.clone()
    triggered[:, :, 3, 3] = 1.0
    return triggered


def with_word(inputs: Tensor) -> Tensor:
    triggered = inputs.clone()
    triggered[:, 0] = 9
    return triggered
