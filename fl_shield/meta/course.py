"""The course of one network's training, step by step, with all that a checkpoint must hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fl_shield.descriptors.plan import matches
from fl_shield.detector.features import CHANNELS, FeatureSpec
from fl_shield.detector.set_network import SetNetwork
from fl_shield.meta.algorithms import OUTER
from fl_shield.meta.episodes import Episodes
from fl_shield.meta.settings import MetaTraining

MAX_GRADIENT = 1.0
"""Norm to which gradients are clipped."""


class Course:
    """A network on its way, drawing from torch's global generator for dropout and first weights.

    Args:
        episodes: Training rounds.
        spec: Columns and units they are read with.
        settings: How to train.
        start: A network of these columns to go on from; None for random weights.

    Attributes:
        network: The network, in training mode.
        done: Steps taken.
        rng: Draws rounds.
        generator: Draws hidden columns.
        losses: Of the steps taken, in order; only of the last ones, if the course goes on from a
            checkpoint that kept none.
    """

    def __init__(
        self,
        episodes: Episodes,
        spec: FeatureSpec,
        settings: MetaTraining,
        start: SetNetwork | None = None,
    ) -> None:
        self.settings, self.spec = settings, spec
        self._episodes = episodes
        self.rng = np.random.default_rng(settings.seed)
        self.generator = torch.Generator().manual_seed(settings.seed)
        reads = columns_mask(spec, settings.reads) if settings.reads else None
        self.network = start or SetNetwork(
            spec.num_features, settings.hidden, dropout=settings.dropout, reads=reads
        )
        self.network.train()
        self.optimiser, self.schedule = one_cycle(self.network, settings)
        self.done = 0
        self.losses: list[float] = []

    def step(self) -> float:
        """Take one outer step and return its loss."""
        self.optimiser.zero_grad()
        outer = OUTER[self.settings.algorithm]
        loss = outer(self.network, self._episodes, self.settings, self.rng, self.generator)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT)
        self.optimiser.step()
        self.schedule.step()
        self.done += 1
        self.losses.append(loss)
        return loss


def columns_mask(spec: FeatureSpec, patterns: Sequence[str]) -> Tensor:
    """Return `(num_features,)`: 1 for the features of columns that are meant, 0 for all others."""
    return torch.tensor([float(matches(name, patterns)) for name in spec.names]).repeat(CHANNELS)


def one_cycle(
    network: SetNetwork, settings: MetaTraining
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return AdamW for a network, and the one cycle of its learning rate over all steps."""
    optimiser = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps
    )
    return optimiser, schedule
