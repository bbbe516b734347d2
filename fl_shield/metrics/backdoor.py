"""How well a model does its task, and how well it obeys the trigger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fl_shield.attacks.attack import Attack
from fl_shield.data.task import Split, model_inputs

BATCH_SIZE = 512


def accuracy(
    model: nn.Module,
    split: Split,
    batch_size: int = BATCH_SIZE,
    device: torch.device | str | None = None,
) -> float | None:
    """Return the share of samples that the model classifies correctly.

    Args:
        model: Called as `model(inputs)`, returns `(batch, classes)` logits; its mode is restored.
        split: The samples.
        batch_size: Samples in a forward pass; the result does not depend on it.
        device: Where to compute; the model is moved there. None for where it is.

    Returns:
        A number in [0, 1]; None if there are no samples.
    """
    if not len(split):
        return None
    with _evaluating(model, device) as place:
        hits = 0
        for start in range(0, len(split), batch_size):
            inputs = model_inputs(split.inputs[start : start + batch_size]).to(place)
            labels = split.labels[start : start + batch_size].to(place)
            hits += int((_predict(model, inputs) == labels).sum())
    return hits / len(split)


def attack_success_rate(
    model: nn.Module,
    split: Split,
    attack: Attack,
    batch_size: int = BATCH_SIZE,
    device: torch.device | str | None = None,
    seed: int = 0,
) -> float | None:
    """Return the share of triggered inputs that get the class the attacker wants.

    Samples on which success would prove nothing are left out: with an all-to-one goal, those of
    the target class itself.

    Args:
        model: Called as `model(inputs)`, returns `(batch, classes)` logits; its mode is restored.
        split: Clean test samples with their true labels.
        attack: The attack, bound to the task.
        batch_size: Samples in a forward pass.
        device: Where to compute; the model is moved there. None for where it is.
        seed: Seed of triggers that place themselves at random.

    Returns:
        A number in [0, 1]; None if no sample is left.
    """
    victims = attack.goal.victims(split.labels, attack.target_class).nonzero().flatten()
    if not len(victims):
        return None
    generator = torch.Generator().manual_seed(seed)
    split = split.take(victims)
    with _evaluating(model, device) as place:
        hits = 0
        for start in range(0, len(split), batch_size):
            inputs = model_inputs(split.inputs[start : start + batch_size])
            inputs = attack.trigger.apply(inputs, generator).to(place)
            labels = split.labels[start : start + batch_size]
            wanted = attack.goal.wanted(labels, attack.target_class).to(place)
            hits += int((_predict(model, inputs) == wanted).sum())
    return hits / len(split)


def _predict(model: nn.Module, inputs: Tensor) -> Tensor:
    logits: Tensor = model(inputs)
    return logits.argmax(dim=1)


@contextmanager
def _evaluating(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """Put every layer into eval mode, and back into the mode it had."""
    modes = {module: module.training for module in model.modules()}
    if device is not None:
        model.to(device)
    first = next(model.parameters(), None)
    model.eval()
    try:
        with torch.no_grad():
            yield torch.device("cpu") if first is None else first.device
    finally:
        for module, training in modes.items():
            module.training = training
