"""Widening: a detector that learned much goes on to learn from columns that it did not have.

A widened network gives what it gave before: the weights of its new columns start at zero. Then it
learns from the truth like any other, at a small rate. Descriptors that are added later, or shadow
federations of one's own, need no training from scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fl_shield.detector.ensemble import readers_of
from fl_shield.detector.features import CHANNELS, FeatureSpec
from fl_shield.detector.meta_detector import MetaDetector
from fl_shield.detector.set_network import SetNetwork
from fl_shield.meta.settings import MetaTraining
from fl_shield.meta.training import checked_features, members, train_network
from fl_shield.shadow.table import EpisodeTable

BY_FEATURE = ("encoder.0.weight", "reads")
"""Tensors of a network whose last axis runs over features."""


def widen_detector(
    start: MetaDetector, tables: Sequence[EpisodeTable], settings: MetaTraining
) -> tuple[list[SetNetwork], FeatureSpec]:
    """Return networks that go on from those of a detector, and the columns that they read.

    Args:
        start: Where to go on from; it is left as it is.
        tables: Training rounds.
        settings: How to train; `networks`, `experts` and `hidden` are those of `start`. Experts
            read what they read before.

    Raises:
        ConfigurationError: as for `train_detector`.
    """
    spec = joined(start.spec, checked_features(tables, settings.leave_out))
    readers = len(readers_of(start.networks))
    like = replace(settings, networks=readers, experts=len(start.networks) - readers)
    networks = [
        train_network(tables, spec, one, start=widened(network, start.spec, spec, settings.dropout))
        for one, network in zip(members(like, spec), start.networks, strict=True)
    ]
    return networks, spec


def joined(old: FeatureSpec, found: FeatureSpec) -> FeatureSpec:
    """Return all columns of both, sorted; those of `old` keep their units."""
    units = dict(zip(found.names, found.units, strict=True))
    units |= dict(zip(old.names, old.units, strict=True))
    names = tuple(sorted(units))
    return FeatureSpec(names, tuple(units[name] for name in names))


def widened(
    network: SetNetwork, old: FeatureSpec, new: FeatureSpec, dropout: float = 0.0
) -> SetNetwork:
    """Return a copy of a network that reads the columns of `new`, and gives the same log-odds.

    Args:
        network: Reads the columns of `old`.
        old: Its columns.
        new: The same and more.
        dropout: Share of units dropped in further training.
    """
    place = {name: column for column, name in enumerate(new.names)}
    kept = [place[name] for name in old.names]

    def spread(by_feature: Tensor) -> Tensor:
        filled = torch.zeros(*by_feature.shape[:-1], CHANNELS, len(new.names))
        filled[..., kept] = by_feature.reshape(*by_feature.shape[:-1], CHANNELS, -1)
        return filled.flatten(-2)

    state = {name: tensor.clone().float() for name, tensor in network.state_dict().items()}
    state |= {name: spread(state[name]) for name in BY_FEATURE if name in state}
    wide = SetNetwork(
        new.num_features, network.hidden, network.pools, dropout, network.heads, state.get("reads")
    )
    wide.load_state_dict(state)
    return wide
