"""What an attacker does to its model, beyond the data it trains on: hooks into local training.

The hooks see the model's trainable parameters only. Buffers (BatchNorm statistics and counters)
are sent as trained: scaled, a running variance can fall below zero and a counter between integers,
and either would give the attacker away for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fl_shield.data.task import Split

Parameters = Mapping[str, Tensor]
"""Parameter name to tensor: those sent out by the server, or those trained from them."""

BATCH_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Last part of the names of BatchNorm buffers."""


@dataclass(frozen=True)
class Knowledge:
    """All that an attacker knows when a local training begins, besides the model it received.

    It never includes what benign clients hold or send, nor what the server probes with.

    Attributes:
        samples: Its own samples, before any is poisoned.
        num_steps: Steps that the optimiser will take.
        clean_loss: Computes the mean loss on its own unpoisoned data (a scalar that can be
            differentiated).
        train_benign: Trains honestly from the received model and returns the parameters. Number 0
            is on its own samples, the next are on those of each client that it colludes with;
            higher numbers go round again, on bootstrap samples.
    """

    samples: Split
    num_steps: int
    clean_loss: Callable[[], Tensor]
    train_benign: Callable[[int], dict[str, Tensor]]


@runtime_checkable
class ModelPoisoning(Protocol):
    """Hooks of local training; `NoModelPoisoning` is the identity to derive from."""

    @property
    def task_weight(self) -> float:
        """Weight of the classification loss; the penalty is added to it."""

    def begin(self, model: nn.Module, knowledge: Knowledge) -> ModelPoisoning:
        """Return the hooks for one local training, with what they learn before it starts.

        Args:
            model: The model as received from the server, in eval mode.
            knowledge: What else the attacker knows.
        """

    def penalty(
        self, model: nn.Module, reference: Parameters, inputs: Tensor, labels: Tensor
    ) -> Tensor | None:
        """Return a differentiable scalar to add to the loss of a step, or None.

        Args:
            model: The model in training, in train mode.
            reference: The trainable parameters as received.
            inputs: The batch of the step as trained on, poisoned samples included.
            labels: `(batch,)` its labels, those of poisoned samples already changed.
        """

    def after_backward(self, model: nn.Module) -> None:
        """Change gradients in place, before the optimiser's step."""

    def after_step(self, model: nn.Module, reference: Parameters, step: int) -> None:
        """Change parameters in place, after the optimiser's step number `step` (from 1)."""

    def craft(self, reference: Parameters, trained: Parameters) -> dict[str, Tensor]:
        """Return the parameters to send, key for key like `trained`."""


@dataclass(frozen=True)
class NoModelPoisoning:
    """The attacker poisons its data only and sends what it trained."""

    def __str__(self) -> str:
        return "data poisoning only"

    @property
    def task_weight(self) -> float:
        """The classification loss counts in full."""
        return 1.0

    def begin(self, model: nn.Module, knowledge: Knowledge) -> ModelPoisoning:
        """Return these hooks: there is nothing to learn."""
        return self

    def penalty(
        self, model: nn.Module, reference: Parameters, inputs: Tensor, labels: Tensor
    ) -> Tensor | None:
        """Return None: no penalty."""
        return None

    def after_backward(self, model: nn.Module) -> None:
        """Leave the gradients as they are."""

    def after_step(self, model: nn.Module, reference: Parameters, step: int) -> None:
        """Leave the parameters as they are."""

    def craft(self, reference: Parameters, trained: Parameters) -> dict[str, Tensor]:
        """Return `trained`."""
        return dict(trained)


def movable(parameters: Parameters) -> list[str]:
    """Return the names of the entries that may be moved freely.

    These are the floating-point entries other than BatchNorm statistics, so that crafting a whole
    `state_dict` is as safe as crafting parameters.
    """
    return [
        name
        for name, tensor in parameters.items()
        if tensor.is_floating_point() and name.rpartition(".")[2] not in BATCH_STATISTICS
    ]


def distance(reference: Parameters, trained: Parameters) -> Tensor:
    """Return the L2 distance of `trained` from `reference` over all movable entries (scalar)."""
    moves = [(trained[name] - reference[name]).flatten() for name in movable(trained)]
    length: Tensor = torch.linalg.vector_norm(torch.cat(moves))  # unlike a root, smooth enough at 0
    return length
