"""The meta-classifier of MBDS: two 1×1 convolutions and three fully connected layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class MetaClassifier(nn.Module):
    """Log-odds that feature maps are those of a triggered sample (MBDS, section V-A, b).

    Args:
        channels: Channels of the maps.
        height: Height of the maps.
        width: Width of the maps.
        filters: Filters of the two 1×1 convolutions (Lin et al., *Network in Network*, 2013).
        hidden: Units of the two hidden layers.
        dropout: Share of hidden units dropped in training.
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        *,
        filters: tuple[int, int] = (64, 32),
        hidden: tuple[int, int] = (128, 32),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.scale = nn.BatchNorm2d(channels)
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, filters[0], 1), nn.ReLU(),
            nn.Conv2d(filters[0], filters[1], 1), nn.ReLU(),
        )  # fmt: skip
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(filters[1] * height * width, hidden[0]), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden[0], hidden[1]), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden[1], 1),
        )  # fmt: skip

    def forward(self, maps: Tensor) -> Tensor:
        """Return log-odds `(samples,)` of maps `(samples, channels, height, width)`."""
        odds: Tensor = self.layers(self.convolutions(self.scale(maps))).squeeze(1)
        return odds


def train_meta_classifier(
    maps: Tensor, triggered: Tensor, *, epochs: int, batch_size: int = 64, seed: int = 0
) -> MetaClassifier:
    """Return a classifier trained on labelled features, both kinds of the same weight.

    Args:
        maps: `(samples, channels, height, width)`.
        triggered: `(samples,)` bool.
        epochs: Passes over the features.
        batch_size: Samples in a step.
        seed: Seed of weights, order and dropout.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, channels, height, width = maps.shape
        network = MetaClassifier(channels, height, width)
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-4)
        share = triggered.float().mean().clamp(0.01, 0.99)
        weight = torch.where(triggered, 0.5 / share, 0.5 / (1.0 - share))
        for _ in range(epochs):
            for batch in torch.split(torch.randperm(len(maps)), batch_size):
                if len(batch) < 2:  # batch normalisation has nothing to normalise
                    continue
                optimiser.zero_grad()
                loss = functional.binary_cross_entropy_with_logits(
                    network(maps[batch]), triggered[batch].float(), weight=weight[batch]
                )
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
    return network.eval()
