"""Fine-Pruning: remove the neurons that clean inputs leave dormant, then fine-tune (Liu, 2018).

Liu, Dolan-Gavitt and Garg, RAID 2018, section 3. A backdoor lives in capacity that clean inputs do
not use: channels of the last convolutional layer are removed in the order of their mean activation
on clean samples, the dormant ones first, as long as accuracy lasts (3.1). An attacker who knows
that puts the backdoor into neurons that are needed; fine-tuning on clean samples then undoes what
pruning spared (3.3). Models without a convolution are pruned in their last hidden linear layer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fl_shield.activations.penultimate import find_final_layer
from fl_shield.data.task import Split, model_inputs
from fl_shield.errors import ConfigurationError, ModelError, expected, unknown
from fl_shield.metrics.backdoor import accuracy
from fl_shield.training.local import LocalTraining, train_locally

FINE_TUNING = LocalTraining(optimiser="adam", learning_rate=1e-3, epochs=10, batch_size=32)

MIN_SAMPLES = 8
"""Below this neither dormancy nor accuracy can be told."""


@dataclass(frozen=True)
class Pruned:
    """A pruned and fine-tuned model.

    Attributes:
        model: The repaired model, in eval mode; the given one is left as it was.
        layer: Name of the layer that was pruned.
        channels: Its removed channels, in the order of removal.
        accuracy_before: On the clean samples, of the given model.
        accuracy_pruned: On the clean samples, after pruning and before fine-tuning.
    """

    model: nn.Module
    layer: str
    channels: tuple[int, ...]
    accuracy_before: float
    accuracy_pruned: float


def fine_prune(
    model: nn.Module,
    clean: Split,
    *,
    largest_drop: float = 0.04,
    fine_tuning: LocalTraining | None = FINE_TUNING,
    layer: str | None = None,
    seed: int = 0,
) -> Pruned:
    """Prune dormant channels and fine-tune on clean samples.

    Args:
        model: The model to repair; a copy is worked on.
        clean: Clean labelled samples, as stored or as the model takes them.
        largest_drop: Accuracy on them that pruning may cost; 0.04 in the paper.
        fine_tuning: How to fine-tune; None prunes only.
        layer: Layer to prune; None for the last convolution, or the last hidden linear layer.
        seed: Seed of the fine-tuning.

    Raises:
        ConfigurationError: if there are too few samples, or a single class.
        ModelError: if no layer can be pruned.
    """
    check_clean(clean)
    if not 0.0 <= largest_drop < 1.0:
        raise ConfigurationError(expected("largest_drop", "at least 0 and below 1", largest_drop))
    repaired = copy.deepcopy(model).eval()
    inputs = model_inputs(clean.inputs)
    name = find_prunable_layer(repaired, inputs, layer)
    module = repaired.get_submodule(name)
    order = mean_activations(repaired, module, inputs).argsort(stable=True).tolist()
    before = accuracy(repaired, clean)
    assert before is not None
    mask = torch.ones(len(order))
    removed: list[int] = []
    pruned_accuracy = before
    with _masked(module, mask):
        for channel in order[:-1]:  # a layer of no channels computes nothing
            mask[channel] = 0.0
            now = accuracy(repaired, clean)
            assert now is not None
            if now < before - largest_drop - 1e-9:
                mask[channel] = 1.0
                break
            removed.append(channel)
            pruned_accuracy = now
        if fine_tuning is not None:
            # Masked outputs have no gradient: what is pruned stays so.
            train_locally(repaired, clean, fine_tuning, seed=seed)
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            parameter[removed] = 0.0
    return Pruned(repaired.eval(), name, tuple(removed), before, pruned_accuracy)


def find_prunable_layer(model: nn.Module, inputs: Tensor, name: str | None = None) -> str:
    """Return the name of the layer to prune.

    Args:
        model: The model, in eval mode.
        inputs: A batch it can be called with.
        name: A layer that the caller wants; it is only checked.

    Raises:
        ModelError: if `name` is no convolution or linear layer, or there is none in front of the
            final layer.
    """
    layers = {key: m for key, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    if name is not None:
        if name not in layers:
            raise ModelError(unknown("layer to prune", name, layers))
        return name
    final = find_final_layer(model, inputs[:2])
    convolutions = [key for key, m in layers.items() if isinstance(m, nn.Conv2d)]
    hidden = [key for key in layers if key != final]
    if not hidden:
        raise ModelError(
            "The model has no convolution or linear layer in front of its final one: there is "
            "nothing to prune. Use unlearn_triggers, or name a layer."
        )
    last: str = (convolutions or hidden)[-1]
    return last


def mean_activations(model: nn.Module, module: nn.Module, inputs: Tensor) -> Tensor:
    """Return `(channels,)` means of the layer's output behind ReLU, over samples and positions."""
    found: list[Tensor] = []

    def remember(module: nn.Module, _args: Any, output: Tensor) -> None:
        axis = 1 if isinstance(module, nn.Conv2d) else -1
        positive = output.detach().relu().movedim(axis, 0).flatten(1)
        found.append(positive.mean(dim=1))

    hook = module.register_forward_hook(remember)
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        hook.remove()
    return found[0]


def check_clean(clean: Split) -> None:
    """Check the samples of a repair.

    Raises:
        ConfigurationError: if there are too few, or of a single class.
    """
    if len(clean) < MIN_SAMPLES:
        raise ConfigurationError(
            expected("clean", f"at least {MIN_SAMPLES} samples for a repair", len(clean))
        )
    if len(set(clean.labels.tolist())) < 2:
        raise ConfigurationError(
            "The clean samples are of a single class; a model repaired on them would know no "
            "other. Give samples of all classes."
        )


@contextmanager
def _masked(module: nn.Module, mask: Tensor) -> Iterator[None]:
    """Multiply the channels of a layer's output by `mask`, which may change meanwhile."""
    shape = (-1, 1, 1) if isinstance(module, nn.Conv2d) else (-1,)

    def apply(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        return output * mask.to(output).reshape(shape)

    hook = module.register_forward_hook(apply)
    try:
        yield
    finally:
        hook.remove()
