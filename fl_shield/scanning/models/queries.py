"""Queries that can be trained: images as they are, texts as sequences of embeddings.

Token ids have no gradient, so that a text model is queried behind its embedding (MNTD, section
V-A): its output is replaced by the query, whatever tokens went in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fl_shield.activations.penultimate import call_model
from fl_shield.descriptors.tokens import find_embedding
from fl_shield.errors import ModelError
from fl_shield.scanning.protocol import Held, require_inputs

SPREAD = 1e-3
"""Standard deviation of text queries at the start, about the mean embedding of 0."""


def starting_queries(held: Held, count: int, seed: int, name: str) -> Tensor:
    """Return where queries start: `(count, …)` in the form that `query_model` takes.

    Images start as normal noise of the clean samples' mean and deviation, texts near 0.

    Args:
        held: What the defender holds.
        count: Number of queries.
        seed: Seed of the noise.
        name: The scanner that asks, for messages.

    Raises:
        ModelError: for text, if the architecture has no embedding layer.
    """
    generator = torch.Generator().manual_seed(seed)
    clean = require_inputs(held, name)
    if held.spec.modality == "image":
        noise = torch.randn(count, *clean.shape[1:], generator=generator)
        return noise * clean.std().cpu() + clean.mean().cpu()
    model = held.model if held.architecture is None else held.architecture(held.spec)
    layer = None if model is None else _embedding(model)
    if model is None or layer is None:
        raise ModelError(
            f"The scanner {name} queries text models behind their embedding, and the model has no "
            "torch.nn.Embedding for the tokens."
        )
    width = model.get_submodule(layer).embedding_dim
    assert isinstance(width, int)
    return SPREAD * torch.randn(count, clean.shape[1], width, generator=generator)


def query_model(held: Held) -> Callable[[nn.Module, Tensor], Tensor]:
    """Return the function that puts queries to a model: `(queries, classes)` logits."""
    if held.spec.modality == "image":
        return call_model
    clean = held.clean.inputs
    assert isinstance(clean, Tensor)
    return lambda model, queries: _behind_embedding(model, queries, clean)


def _behind_embedding(model: nn.Module, queries: Tensor, clean: Tensor) -> Tensor:
    layer = _embedding(model)
    if layer is None:
        raise ModelError("The model has no torch.nn.Embedding for the tokens to query it behind.")
    width = getattr(model.get_submodule(layer), "embedding_dim", None)
    if width != queries.shape[2]:
        raise ModelError(
            f"The model embeds tokens in {width} numbers, the shadows in {queries.shape[2]}. Only "
            "models like the shadows can be judged."
        )
    count = len(queries)
    # The longest texts: padding would be masked, and with it most of a query.
    sizes = (clean != clean.flatten().mode().values).sum(dim=1)
    tokens = clean[sizes.argmax()].expand(count, -1)

    def replace(_module: nn.Module, _args: Any, _output: Tensor) -> Tensor:
        return queries

    hook = model.get_submodule(layer).register_forward_hook(replace)
    try:
        with torch.backends.cudnn.flags(enabled=False):  # no backward in eval mode otherwise
            return call_model(model, tokens)
    finally:
        hook.remove()


def _embedding(model: nn.Module) -> str | None:
    name = find_embedding(model)
    return None if name is None else name.removesuffix(".weight")
