"""Global models at several stages of training, kept on disk for all federations of a domain."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from fl_shield.data.cache import Entry, cached
from fl_shield.data.sampling import stratified_indices
from fl_shield.shadow.domain import OPTIMISERS, Architecture, Domain
from fl_shield.training.local import LocalTraining, train_locally

STAGES = (0.05, 0.12, 0.25, 0.5, 1.0)
"""Shares of the architecture's central training at which the model is kept."""

SETTLED = 3.0
"""Stage of a model that went on, on all samples, until it knows those of the clients by heart."""

POOL_SHARE = 0.5
"""Share of the training split that it sees until its central training is over: clients also bring
samples the model has not seen."""


def warm_model(domain: Domain, architecture: str, seed: int, stage: float) -> nn.Module:
    """Return a model after `stage` of its central training, in eval mode.

    Args:
        domain: Data set and architectures.
        architecture: Name of one.
        seed: Seed of initial weights and training; few are used, so that models can be kept, and
            of settled models, which take long, only the first.
        stage: One of `STAGES`, or `SETTLED`.
    """
    settings = domain.architectures[architecture]
    if stage == SETTLED:
        build, seed = partial(_settled, domain, architecture), 0
    else:
        build = partial(_stages, domain, settings, seed)
    task = domain.task
    sample = _fresh(domain, settings, seed)
    key = {
        "loader": "warm-start",
        "domain": domain.name,
        "classes": task.classes,
        "samples": len(task.train),
        "checksum": int(task.train.inputs[:: max(1, len(task.train) // 97)].long().sum()),
        "model": repr(sample),
        "rates": dict(settings.rates),
        "epochs": settings.epochs,
        "seed": seed,
    }
    if stage == SETTLED:
        key["stage"] = SETTLED
    states, _ = cached(key, build)
    prefix = f"{stage}."
    sample.load_state_dict(
        {name.removeprefix(prefix): t for name, t in states.items() if name.startswith(prefix)}
    )
    return sample.eval()


def _stages(domain: Domain, settings: Architecture, seed: int) -> Entry:
    task = domain.task
    model = _fresh(domain, settings, seed)
    count = math.ceil(POOL_SHARE * len(task.train))
    pool = task.train.take(stratified_indices(task.train.labels, count, seed))
    training = _central(settings)
    states: dict[str, torch.Tensor] = {}
    done = 0
    for number, share in enumerate(STAGES):
        steps = round((share * settings.epochs) * count) - done
        done += steps
        whole, part = divmod(steps, count)
        if whole:
            epochs = replace(training, epochs=whole)
            train_locally(model, pool, epochs, seed=1000 * seed + number)
        if part > 1:
            generator = torch.Generator().manual_seed(seed + number)
            some = torch.randperm(count, generator=generator)[:part]
            train_locally(model, pool.take(some), training, seed=1000 * seed + 500 + number)
        states |= _named(share, model)
    return states, {}


def _settled(domain: Domain, architecture: str) -> Entry:
    settings = domain.architectures[architecture]
    model = warm_model(domain, architecture, 0, 1.0)
    epochs = round((SETTLED - 1.0) * settings.epochs)
    train_locally(model, domain.task.train, replace(_central(settings), epochs=epochs), seed=900)
    return _named(SETTLED, model), {}


def _fresh(domain: Domain, settings: Architecture, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return settings.model(domain.task.spec)


def _central(settings: Architecture) -> LocalTraining:
    kind = "adam" if "adam" in settings.rates else next(iter(settings.rates))
    return replace(OPTIMISERS[kind], learning_rate=settings.rates[kind], batch_size=32)


def _named(stage: float, model: nn.Module) -> dict[str, torch.Tensor]:
    return {f"{stage}.{name}": t.detach().clone() for name, t in model.state_dict().items()}
