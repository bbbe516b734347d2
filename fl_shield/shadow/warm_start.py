"""Global models at several stages of training, kept on disk for all federations of a domain."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from fl_shield.data.cache import cached
from fl_shield.data.sampling import stratified_indices
from fl_shield.shadow.domain import OPTIMISERS, Domain
from fl_shield.training.local import train_locally

STAGES = (0.05, 0.12, 0.25, 0.5, 1.0)
"""Shares of the architecture's central training at which the model is kept."""

POOL_SHARE = 0.5
"""Share of the training split that it sees: clients also bring samples the model has not seen."""


def warm_model(domain: Domain, architecture: str, seed: int, stage: float) -> nn.Module:
    """Return a model after `stage` of its central training, in eval mode.

    Args:
        domain: Data set and architectures.
        architecture: Name of one.
        seed: Seed of initial weights and training; few are used, so that models can be kept.
        stage: One of `STAGES`.
    """
    settings = domain.architectures[architecture]
    task = domain.task

    def fresh() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return settings.model(task.spec)

    def build() -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        model = fresh()
        count = math.ceil(POOL_SHARE * len(task.train))
        pool = task.train.take(stratified_indices(task.train.labels, count, seed))
        kind = "adam" if "adam" in settings.rates else next(iter(settings.rates))
        training = replace(OPTIMISERS[kind], learning_rate=settings.rates[kind], batch_size=32)
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
            for name, tensor in model.state_dict().items():
                states[f"{share}.{name}"] = tensor.detach().clone()
        return states, {}

    sample = fresh()
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
    states, _ = cached(key, build)
    prefix = f"{stage}."
    sample.load_state_dict(
        {name.removeprefix(prefix): t for name, t in states.items() if name.startswith(prefix)}
    )
    return sample.eval()
