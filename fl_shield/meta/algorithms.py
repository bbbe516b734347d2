"""Outer loops of meta-training: what a step does to the gradients of a network.

A *task* is one shadow federation; some of its rounds are support, others query.

| algorithm | gradient of an outer step | source |
|---|---|---|
| `multi_task` | of the loss on rounds of all data sets; nothing is adapted | – |
| `reptile` | mean over tasks of (weights − adapted weights) | Nichol et al. 2018, Alg. 2 |
| `fomaml` | mean over tasks of the query gradient at adapted weights | Finn et al. 2017, 5.2 |
| `anil` | as `fomaml`, but only the last layer is adapted | Raghu et al. 2020, section 4 |
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from fl_shield.detector.set_network import SetNetwork
from fl_shield.meta.episodes import Batch, Episodes, hide_columns
from fl_shield.meta.objective import detection_loss
from fl_shield.meta.settings import MetaTraining

Outer = Callable[[SetNetwork, Episodes, MetaTraining, np.random.Generator, torch.Generator], float]
"""Sets the gradients of a network for one outer step and returns the loss."""


def multi_task(
    network: SetNetwork,
    episodes: Episodes,
    settings: MetaTraining,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> float:
    """Set the gradients of the loss on rounds of all data sets."""
    batch = episodes.batch(episodes.draw(rng, settings.rounds))
    loss = _loss(network, batch, settings.column_dropout, generator)
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def reptile(
    network: SetNetwork,
    episodes: Episodes,
    settings: MetaTraining,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> float:
    """Set, for gradients, the way back from the adapted weights."""
    losses = []
    for _ in range(settings.tasks):
        support, query = episodes.draw_task(rng, settings.rounds)
        adapted = copy.deepcopy(network)
        batch = episodes.batch([*support, *query])
        losses.append(_adapt(adapted, batch, settings, generator))
        for own, moved in zip(network.parameters(), adapted.parameters(), strict=True):
            _add(own, (own.detach() - moved.detach()) / settings.tasks)
    return float(np.mean(losses))


def fomaml(
    network: SetNetwork,
    episodes: Episodes,
    settings: MetaTraining,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> float:
    """Set the query gradients at weights adapted to the support."""
    return _first_order(network, episodes, settings, rng, generator, head_only=False)


def anil(
    network: SetNetwork,
    episodes: Episodes,
    settings: MetaTraining,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> float:
    """Set the query gradients at weights whose last layer is adapted to the support."""
    return _first_order(network, episodes, settings, rng, generator, head_only=True)


OUTER: dict[str, Outer] = {
    "multi_task": multi_task, "reptile": reptile, "fomaml": fomaml, "anil": anil
}  # fmt: skip


def inner_parameters(network: SetNetwork, head_only: bool) -> Sequence[nn.Parameter]:
    """Return what inner steps change: everything, or the last layer only."""
    return list((network.head[-1] if head_only else network).parameters())


def inner_steps(
    network: SetNetwork, batch: Batch, steps: int, rate: float, *, head_only: bool = False
) -> float:
    """Take steps of gradient descent on a batch, in place, and return the loss of the last."""
    loss = 0.0
    for _ in range(steps):
        parameters = inner_parameters(network, head_only)
        value = detection_loss(
            network(batch.features, batch.present), batch.malicious, batch.present
        )
        slopes = torch.autograd.grad(value, parameters)
        with torch.no_grad():
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter.sub_(rate * slope)
        loss = float(value.detach())
    return loss


def _first_order(
    network: SetNetwork,
    episodes: Episodes,
    settings: MetaTraining,
    rng: np.random.Generator,
    generator: torch.Generator,
    *,
    head_only: bool,
) -> float:
    losses = []
    for _ in range(settings.tasks):
        support, query = episodes.draw_task(rng, settings.rounds)
        adapted = copy.deepcopy(network)
        _adapt(adapted, episodes.batch(support), settings, generator, head_only=head_only)
        loss = _loss(adapted, episodes.batch(query), settings.column_dropout, generator)
        slopes = torch.autograd.grad(loss, list(adapted.parameters()))
        for own, slope in zip(network.parameters(), slopes, strict=True):
            _add(own, slope / settings.tasks)
        losses.append(float(loss.detach()))
    return float(np.mean(losses))


def _adapt(
    network: SetNetwork,
    batch: Batch,
    settings: MetaTraining,
    generator: torch.Generator,
    *,
    head_only: bool = False,
) -> float:
    hidden = hide_columns(batch.features, settings.column_dropout, generator)
    part = Batch(hidden, batch.malicious, batch.present)
    return inner_steps(
        network, part, settings.inner_steps, settings.inner_rate, head_only=head_only
    )


def _loss(
    network: SetNetwork, batch: Batch, column_dropout: float, generator: torch.Generator
) -> torch.Tensor:
    features = hide_columns(batch.features, column_dropout, generator)
    return detection_loss(network(features, batch.present), batch.malicious, batch.present)


def _add(parameter: nn.Parameter, slope: torch.Tensor) -> None:
    parameter.grad = slope.clone() if parameter.grad is None else parameter.grad + slope
