"""Learning the networks of a detector from episode tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from fl_shield.detector.features import FeatureSpec, fit_features
from fl_shield.detector.set_network import SetNetwork
from fl_shield.errors import ConfigurationError, expected
from fl_shield.meta.algorithms import OUTER
from fl_shield.meta.episodes import Episodes
from fl_shield.meta.settings import MetaTraining
from fl_shield.shadow.table import EpisodeTable

MAX_GRADIENT = 1.0
"""Norm to which gradients are clipped."""

Progress = Callable[[int, float], None]
"""Called with the number of finished steps and the loss of the last one."""


def train_detector(
    tables: Sequence[EpisodeTable], settings: MetaTraining | None = None
) -> tuple[list[SetNetwork], FeatureSpec]:
    """Return trained networks and the columns that they read.

    Args:
        tables: Training rounds.
        settings: How to train; None for the defaults.

    Raises:
        ConfigurationError: if there is no round, or no attacker in any of them.
    """
    settings = settings or MetaTraining()
    spec = checked_features(tables)
    networks = [train_network(tables, spec, member(settings, i)) for i in range(settings.networks)]
    return networks, spec


def checked_features(tables: Sequence[EpisodeTable]) -> FeatureSpec:
    """Return the columns of training rounds, once it is sure that there is something to learn.

    Raises:
        ConfigurationError: if there is no round, or no attacker in any of them.
    """
    if not any(table.malicious.any() for table in tables):
        raise ConfigurationError(
            expected("tables", "rounds with attackers among them", f"{len(tables)} rounds without")
        )
    return fit_features(tables)


def member(settings: MetaTraining, index: int) -> MetaTraining:
    """Return the settings of one network of the ensemble."""
    return replace(settings, networks=1, seed=1000 * settings.seed + index)


def train_network(
    tables: Sequence[EpisodeTable],
    spec: FeatureSpec,
    settings: MetaTraining,
    progress: Progress | None = None,
) -> SetNetwork:
    """Return one trained network, in evaluation mode; the same arguments give the same one."""
    episodes = Episodes(tables, spec)
    rng = np.random.default_rng(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    outer = OUTER[settings.algorithm]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = SetNetwork(spec.num_features, settings.hidden, dropout=settings.dropout)
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, settings.learning_rate, total_steps=settings.steps
        )
        network.train()
        for step in range(1, settings.steps + 1):
            optimiser.zero_grad()
            loss = outer(network, episodes, settings, rng, generator)
            torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT)
            optimiser.step()
            schedule.step()
            if progress is not None:
                progress(step, loss)
    return network.eval()
