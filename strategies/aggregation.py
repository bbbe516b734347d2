"""Aggregation by the strategy behind the shield, which may fail without ending the run.

Every rule has rounds it cannot take: Krum too few survivors, a trimmed mean nobody to trim. A
round whose aggregation fails, or whose aggregate is no model, keeps the old model, and the server
optimiser stays where it was.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import Strategy

from fl_shield.strategies.checkpoint import OPTIMISER_STATE, layers

log = logging.getLogger("flwr.fl_shield")


def aggregate(
    owner: Strategy,
    strategy: Strategy,
    round_number: int,
    replies: Sequence[Message],
    sent: ArrayRecord,
) -> tuple[ArrayRecord | None, MetricRecord | None]:
    """Return what `strategy` makes of the replies, None for what cannot be used.

    Args:
        owner: The shielded strategy, whose layers hold the state of server optimisers.
        strategy: The strategy behind the shield.
        round_number: Round of the run, from 1.
        replies: Replies that passed.
        sent: The global model that was sent out.
    """
    if not replies:
        return None, None
    before = [
        (layer, name, copy.copy(getattr(layer, name)))
        for layer in layers(owner)
        for name in OPTIMISER_STATE
        if hasattr(layer, name)
    ]
    try:
        arrays, metrics = strategy.aggregate_train(round_number, replies)
        fault = None if arrays is None else _fault(arrays, sent)
    except Exception as error:  # a rule that cannot take these replies
        log.exception("\t> The strategy behind the shield failed.")
        arrays, metrics, fault = None, None, f"it raised {type(error).__name__}"
    if fault is None:
        return arrays, metrics
    log.error("\t> Round %d keeps the old model: no aggregate, %s.", round_number, fault)
    for layer, name, value in before:
        setattr(layer, name, value)
    return None, metrics


def aggregate_metrics(
    strategy: Strategy, round_number: int, replies: Sequence[Message]
) -> MetricRecord | None:
    """Return the strategy's aggregate of evaluation replies, None if it fails."""
    try:
        return strategy.aggregate_evaluate(round_number, replies)
    except Exception:  # figures from clients must not end the training
        log.exception("\t> The evaluation of round %d could not be aggregated.", round_number)
        return None


def _fault(arrays: ArrayRecord, sent: ArrayRecord) -> str | None:
    """Return why an aggregate is no model, None if it is one."""
    if set(arrays) != set(sent):
        return "it has other arrays than the model"
    for name in sent:
        values = arrays[name].numpy()
        if values.shape != tuple(sent[name].shape):
            return f"{name!r} has shape {values.shape}, not {tuple(sent[name].shape)}"
        if not np.isfinite(values).all():
            return f"{name!r} holds NaN or infinite values"
    return None
