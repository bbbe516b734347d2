"""Logits and penultimate features of a model in training, with the graph to learn from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fl_shield.activations.penultimate import logits_of


def read(
    model: nn.Module, final_layer: str, inputs: Tensor, state: Mapping[str, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return logits `(samples, classes)` and what flows into the final layer `(samples, features)`.

    Args:
        model: The model, in whichever mode it is in.
        final_layer: Name of its final classification layer (see `find_final_layer`).
        inputs: `(samples, …)` model inputs.
        state: Parameters and buffers to run it with; those left out, and None, are its own.
    """
    captured: list[Tensor] = []

    def remember(_module: nn.Module, args: Any, kwargs: Any) -> None:
        captured.append(args[0] if args else next(iter(kwargs.values())))

    layer = model.get_submodule(final_layer)
    handle = layer.register_forward_pre_hook(remember, with_kwargs=True)
    try:
        output = torch.func.functional_call(model, dict(state or {}), (inputs,))
    finally:
        handle.remove()
    features = captured[-1]
    if features.dim() > 2:  # positions of a sequence
        features = features.flatten(1, -2).mean(dim=1)
    return logits_of(output), features
