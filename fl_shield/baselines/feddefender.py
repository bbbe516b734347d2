"""FedDefender's fingerprints and votes (Gill et al., SE4SafeML 2023).

A neuron's fingerprint on an input is gradient × activation of an output class, of every neuron of
every convolutional and linear layer; the neuron is active where that is above zero. For each input
the suspect is the client without whom the most neurons are active in common.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_shield.activations.penultimate import logits_under
from fl_shield.baselines.deepsight import noise_inputs
from fl_shield.baselines.observed import Observed
from fl_shield.cohort import State
from fl_shield.probes.probe_set import Inputs

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
TARGET = 1
"""Class whose logit is explained, as published."""


def random_inputs(probes: Inputs, count: int, seed: int) -> Inputs:
    """Return `count` inputs like the probes: Kaiming-normal, or tokens drawn from theirs."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(probes, Tensor) and probes.is_floating_point():
        shape = (count, *probes.shape[1:])
        deviation = (2.0 / max(probes[0].numel(), 1)) ** 0.5
        noise: Tensor = torch.randn(shape, generator=generator) * deviation
        return noise.to(probes.device, probes.dtype)
    return noise_inputs(probes, count, generator)


def active_neurons(observed: Observed, state: State, inputs: Inputs) -> NDArray[np.bool_]:
    """Return which neurons are active, `(inputs, neurons)`, under the weights `state`."""
    model, captured = observed.model, []
    tensors = observed.tensors(state)
    for name in observed.names:
        tensors[name].requires_grad_()

    def remember(_module: nn.Module, _args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            captured.append(output)

    handles = [m.register_forward_hook(remember) for m in model.modules() if isinstance(m, LAYERS)]
    try:
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            logits = logits_under(model, tensors, inputs)
            target = logits[:, min(TARGET, logits.shape[1] - 1)].sum()
            gradients = torch.autograd.grad(target, captured, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    rows = [
        (torch.zeros_like(a) if g is None else g * a).detach().reshape(len(logits), -1) > 0.0
        for a, g in zip(captured, gradients, strict=True)
    ]
    return np.asarray(torch.cat(rows, dim=1).cpu().numpy(), dtype=np.bool_)


def suspect_votes(active: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many inputs accuse each client, `(clients,)`; ties go to the lower index.

    Args:
        active: `(clients, inputs, neurons)`.
    """
    clients, inputs, _ = active.shape
    counts = np.zeros(clients, dtype=np.int64)
    if clients < 2:
        return counts
    silent = (~active).sum(axis=0)
    for number in range(inputs):
        # Without client i, a neuron is common to all others if i alone is silent; neurons that
        # are common to everybody count the same for every i and are left out.
        alone = silent[number] == 1
        common = (~active[:, number, :] & alone).sum(axis=1)
        counts[int(common.argmax())] += 1
    return counts
