"""Slimming: a detector that reads fewer descriptors, taught by one that reads them all.

What a detector reads is what a shield has to look at, and pay for. A slim network starts as a copy
of its teacher without the columns that are left out, and learns to give the same log-odds without
them (distillation: Hinton, Vinyals and Dean, 2015, with the log-odds themselves as targets, as in
their section 2.1). Log-odds keep their meaning, and with it the teacher's calibration.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from fl_shield.detector.features import CHANNELS, FeatureSpec, matches
from fl_shield.detector.meta_detector import MetaDetector
from fl_shield.detector.set_network import SetNetwork
from fl_shield.errors import ConfigurationError, expected
from fl_shield.meta.calibrate import log_odds
from fl_shield.meta.course import MAX_GRADIENT, one_cycle
from fl_shield.meta.episodes import Batch, Episodes, hide_columns
from fl_shield.meta.settings import MetaTraining
from fl_shield.shadow.table import EpisodeTable


def slim_detector(
    teacher: MetaDetector, tables: Sequence[EpisodeTable], settings: MetaTraining
) -> MetaDetector:
    """Return a detector that reads what `settings.leave_out` leaves, calibrated as its teacher.

    Args:
        teacher: Reads more.
        tables: Rounds to learn from; their truth is not looked at.
        settings: How to train; `algorithm` and `networks` do not matter.

    Raises:
        ConfigurationError: if no column is left, or there is no round.
    """
    if not tables:
        raise ConfigurationError(expected("tables", "one round or more", "none"))
    kept = [
        index
        for index, name in enumerate(teacher.spec.names)
        if not matches(name, settings.leave_out)
    ]
    if not kept:
        raise ConfigurationError(
            expected("leave_out", "to leave a descriptor", ", ".join(settings.leave_out))
        )
    spec = FeatureSpec(
        tuple(teacher.spec.names[i] for i in kept), tuple(teacher.spec.units[i] for i in kept)
    )
    raw = MetaDetector(teacher.networks, teacher.spec)  # log-odds, as networks give them
    goals = [log_odds(raw, table) for table in tables]
    episodes = Episodes(tables, spec)
    networks = [
        _taught(reduced(network, len(teacher.spec.names), kept), episodes, goals, settings, index)
        for index, network in enumerate(teacher.networks)
    ]
    return MetaDetector(networks, spec, teacher.calibration, teacher.card, teacher.name)


def reduced(network: SetNetwork, columns: int, kept: Sequence[int]) -> SetNetwork:
    """Return a copy of a network that reads only the `kept` of its `columns`.

    It gives what the network gives where the other columns are not there.
    """
    slim = SetNetwork(CHANNELS * len(kept), network.hidden, network.pools)
    state = {name: tensor.clone().float() for name, tensor in network.state_dict().items()}
    weight = state["encoder.0.weight"].unflatten(1, (CHANNELS, columns))
    state["encoder.0.weight"] = weight[:, :, list(kept)].flatten(1).contiguous()
    slim.load_state_dict(state)
    return slim


def _taught(
    network: SetNetwork,
    episodes: Episodes,
    goals: Sequence[np.ndarray],
    settings: MetaTraining,
    index: int,
) -> SetNetwork:
    rng = np.random.default_rng([settings.seed, index])
    generator = torch.Generator().manual_seed(1000 * settings.seed + index)
    optimiser, schedule = one_cycle(network, settings)
    network.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 * settings.seed + index)  # dropout
        for _ in range(settings.steps):
            drawn = episodes.draw(rng, settings.rounds)
            batch = episodes.batch(drawn)
            hidden = hide_columns(batch.features, settings.column_dropout, generator)
            optimiser.zero_grad()
            odds = network(hidden, batch.present)
            torch.autograd.backward(_distance(odds, batch, [goals[i] for i in drawn]))
            torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT)
            optimiser.step()
            schedule.step()
    return network.eval()


def _distance(odds: Tensor, batch: Batch, goals: Sequence[np.ndarray]) -> Tensor:
    """Return the mean smooth L1 distance of log-odds, every round weighing the same."""
    wanted = torch.zeros_like(odds)
    for row, goal in enumerate(goals):
        wanted[row, : len(goal)] = torch.from_numpy(goal).to(wanted)
    apart = smooth_l1_loss(odds, wanted, reduction="none") * batch.present
    return (apart.sum(dim=1) / batch.present.sum(dim=1)).mean()
