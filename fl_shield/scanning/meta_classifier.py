"""The meta-classifier of MBDS: two 1×1 convolutions and three fully connected layers."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

HELD_OUT = 8
"""Of so many shadow models, one is kept out to say when to stop."""


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
    maps: Tensor,
    triggered: Tensor,
    *,
    epochs: int,
    source: Tensor | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> MetaClassifier:
    """Return a classifier trained on labelled features, both kinds of the same weight.

    Args:
        maps: `(samples, channels, height, width)`.
        triggered: `(samples,)` bool.
        epochs: Passes over the features, at most.
        source: `(samples,)` number of the shadow model that a feature is from. Every `HELD_OUT`-th
            model is then kept out, and the weights are those of the pass that does best there: what
            is to be judged is another model, too. None to train on all for all passes.
        batch_size: Samples in a step.
        seed: Seed of weights, order and dropout.
    """
    weight = _balanced(triggered)
    aside = torch.zeros(len(maps), dtype=torch.bool)
    if source is not None:
        aside = source % HELD_OUT == HELD_OUT - 1
    learned, kept_out = (~aside).nonzero().flatten(), aside.nonzero().flatten()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, channels, height, width = maps.shape
        network = MetaClassifier(channels, height, width)
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-4)
        best, least = copy.deepcopy(network.state_dict()), math.inf
        for _ in range(epochs):
            for batch in torch.split(learned[torch.randperm(len(learned))], batch_size):
                if len(batch) < 2:  # batch normalisation has nothing to normalise
                    continue
                optimiser.zero_grad()
                _loss(network(maps[batch]), triggered[batch], weight[batch]).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            if len(kept_out):
                with torch.no_grad():
                    odds = network.eval()(maps[kept_out])
                    loss = float(_loss(odds, triggered[kept_out], weight[kept_out]))
                network.train()
                if loss < least:
                    best, least = copy.deepcopy(network.state_dict()), loss
        if len(kept_out):
            network.load_state_dict(best)
    return network.eval()


def _balanced(triggered: Tensor) -> Tensor:
    """Return weights `(samples,)` by which both kinds weigh the same."""
    share = triggered.float().mean().clamp(0.01, 0.99)
    return torch.where(triggered, 0.5 / share, 0.5 / (1.0 - share))


def _loss(odds: Tensor, triggered: Tensor, weight: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(odds, triggered.float(), weight=weight)
