"""Local training: the one loop that benign clients and attackers run."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_shield.attacks.attack import Attack
from fl_shield.attacks.model_poisoning import (
    Knowledge,
    ModelPoisoning,
    NoModelPoisoning,
    Parameters,
)
from fl_shield.data.task import Split, model_inputs
from fl_shield.errors import DataError, expected, raise_all, unknown

Optimiser = Literal["sgd", "adam", "adamw"]


@dataclass(frozen=True, kw_only=True)
class LocalTraining:
    """How a client trains in one round.

    Attributes:
        optimiser: `"sgd"`, `"adam"` or `"adamw"`.
        learning_rate: Step size.
        momentum: Momentum of SGD; the other optimisers do not use it.
        weight_decay: Weight decay.
        epochs: Passes over the client's samples.
        batch_size: Samples in a step.
        proximal_mu: Weight of FedProx's proximal term mu/2 * ||w - w_global||² (Li et al., 2020,
            eq. 2); 0 leaves it out.
        max_grad_norm: Gradients are clipped to this L2 norm before each step; None for no limit.

    Raises:
        ConfigurationError: if a setting is impossible.
    """

    optimiser: Optimiser = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    epochs: int = 1
    batch_size: int = 32
    proximal_mu: float = 0.0
    max_grad_norm: float | None = None

    def __post_init__(self) -> None:
        """Check all settings at once."""
        problems = []
        if self.optimiser not in get_args(Optimiser):
            problems.append(unknown("training.optimiser", self.optimiser, get_args(Optimiser)))
        if not self.learning_rate > 0:
            problems.append(expected("training.learning_rate", "above 0", self.learning_rate))
        if not 0 <= self.momentum < 1:
            problems.append(expected("training.momentum", "in [0, 1)", self.momentum))
        for name in ("weight_decay", "proximal_mu"):
            if not getattr(self, name) >= 0:
                problems.append(expected(f"training.{name}", "0 or more", getattr(self, name)))
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                problems.append(expected(f"training.{name}", "1 or more", getattr(self, name)))
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            problems.append(
                expected("training.max_grad_norm", "above 0, or null", self.max_grad_norm)
            )
        raise_all(problems)

    def build_optimiser(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Return a fresh optimiser for `parameters`."""
        rate, decay = self.learning_rate, self.weight_decay
        if self.optimiser == "adam":
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
        if self.optimiser == "adamw":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
        return torch.optim.SGD(parameters, lr=rate, momentum=self.momentum, weight_decay=decay)


def train_locally(
    model: nn.Module,
    split: Split,
    settings: LocalTraining,
    *,
    seed: int,
    attack: Attack | None = None,
    colluders: Sequence[Split] = (),
) -> float:
    """Train `model` in place on a client's samples; the same seed gives the same weights.

    An attack poisons a fixed subset of the samples once, before the first epoch, as an attacker
    that tampers with its data set would; its model poisoning then hooks into the steps. The
    caller asks `attack.active(round)` and passes None in the rounds that are not attacked.

    Args:
        model: The model as received from the server, on any device; returned in train mode.
        split: The client's samples.
        settings: How to train.
        seed: Seed of batch order, poisoning and dropout; the global generators are left alone.
        attack: The attack, bound to the task; None for a benign client.
        colluders: Samples of the attacker's accomplices, which some attacks learn from.

    Returns:
        The mean loss over all samples seen, without proximal term or penalty.

    Raises:
        DataError: if the split is empty.
    """
    if not len(split):
        raise DataError(
            expected("len(split)", "at least 1", 0, "Give every client at least one sample.")
        )
    device = next(model.parameters()).device
    reference = {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    generator = torch.Generator().manual_seed(seed)
    with _seeded(seed, device):
        hooks: ModelPoisoning = NoModelPoisoning()
        samples = split
        if attack is not None:
            model.eval()  # learning from clean data must not move BatchNorm statistics
            knowledge = Knowledge(
                samples=split,
                num_steps=settings.epochs * _num_batches(len(split), settings.batch_size),
                clean_loss=_mean_loss(model, split, settings, device),
                train_benign=_benign_training(model, (split, *colluders), settings, seed),
            )
            hooks = attack.model_poisoning.begin(model, knowledge)
            inputs, labels = attack.poison(
                model_inputs(split.inputs), split.labels, generator, model
            )
            samples = Split(inputs, labels)
        model.train()
        loss = _run_epochs(model, samples, settings, reference, hooks, generator)
        if attack is not None:
            trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
            _load(model, hooks.craft(reference, trained))
    return loss


def _run_epochs(
    model: nn.Module,
    samples: Split,
    settings: LocalTraining,
    reference: Parameters,
    hooks: ModelPoisoning,
    generator: torch.Generator,
) -> float:
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    optimiser = settings.build_optimiser(parameters)
    total, step = 0.0, 0
    for _ in range(settings.epochs):
        for batch in _batches(len(samples), settings.batch_size, generator):
            inputs = model_inputs(samples.inputs[batch]).to(device)
            labels = samples.labels[batch].to(device)
            optimiser.zero_grad(set_to_none=True)
            with _single_sample_safe(model, len(batch)):
                loss = functional.cross_entropy(model(inputs), labels)
            objective = loss * hooks.task_weight
            if settings.proximal_mu > 0:
                objective = objective + settings.proximal_mu / 2 * _squared_distance(
                    model, reference
                )
            penalty = hooks.penalty(model, reference, inputs, labels)
            if penalty is not None:
                objective = objective + penalty
            objective.backward()  # type: ignore[no-untyped-call]
            hooks.after_backward(model)
            if settings.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            optimiser.step()
            step += 1
            hooks.after_step(model, reference, step)
            total += float(loss.detach()) * len(batch)
    return total / (len(samples) * settings.epochs)


def _batches(num_samples: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Return shuffled index batches; a last batch of one joins the one before.

    BatchNorm cannot normalise a batch of one, and its gradient would be mostly noise.
    """
    batches = list(torch.split(torch.randperm(num_samples, generator=generator), batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _num_batches(num_samples: int, batch_size: int) -> int:
    """Return how many batches `_batches` makes."""
    count = math.ceil(num_samples / batch_size)
    last = num_samples - (count - 1) * batch_size
    return count - 1 if count > 1 and last == 1 else count


@contextmanager
def _single_sample_safe(model: nn.Module, batch_size: int) -> Iterator[None]:
    """Let BatchNorm use its running statistics while the batch holds a single sample."""
    if batch_size > 1:
        yield
        return
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for layer in layers:
        layer.eval()
    yield
    for layer in layers:
        layer.train()


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed dropout for a while, without touching the generators of the rest of the process."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _mean_loss(
    model: nn.Module, split: Split, settings: LocalTraining, device: torch.device
) -> Callable[[], Tensor]:
    """Return a function that computes the mean loss on unpoisoned samples, one batch deep.

    One batch is enough to rank gradients by size, and its graph fits where a training step does.
    """
    size = max(settings.batch_size, 256)

    def loss() -> Tensor:
        inputs = model_inputs(split.inputs[:size]).to(device)
        with torch.backends.cudnn.flags(enabled=False):  # its RNNs have no backward in eval mode
            return functional.cross_entropy(model(inputs), split.labels[:size].to(device))

    return loss


def _benign_training(
    model: nn.Module, data: Sequence[Split], settings: LocalTraining, seed: int
) -> Callable[[int], dict[str, Tensor]]:
    """Return a function that trains honestly from `model`, as `Knowledge.train_benign` has it."""

    def train(number: int) -> dict[str, Tensor]:
        shadow, split = copy.deepcopy(model), data[number % len(data)]
        own_seed = (seed + 1 + number) % 2**63
        if number >= len(data):
            generator = torch.Generator().manual_seed(own_seed)
            split = split.take(torch.randint(len(split), (len(split),), generator=generator))
        train_locally(shadow, split, settings, seed=own_seed)
        return {n: p.detach() for n, p in shadow.named_parameters() if p.requires_grad}

    return train


def _squared_distance(model: nn.Module, reference: Parameters) -> Tensor:
    parameters = dict(model.named_parameters())
    return torch.stack(
        [(parameters[name] - origin).square().sum() for name, origin in reference.items()]
    ).sum()


@torch.no_grad()
def _load(model: nn.Module, crafted: Parameters) -> None:
    parameters = dict(model.named_parameters())
    for name, tensor in crafted.items():
        parameters[name].copy_(tensor)
