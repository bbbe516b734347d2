"""Directions in embedding space: what the embedding of one token has to become to mean a class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fl_shield.activations.penultimate import logits_under
from fl_shield.probes.probe_set import Inputs

PLACE = 1
"""Position of the inserted token: behind the first, where Transformers classify."""

NUM_OBEYED, MAX_OBEYED = 3, 24
"""Tokens that the global model obeys already: of each class, and of all together."""


def token_directions(
    model: nn.Module, state: Mapping[str, Tensor], layer: str, inputs: Inputs
) -> Tensor:
    """Return `(classes, features)` gradients of the centred logits by the token at `PLACE`.

    Args:
        model: A text classifier in eval mode.
        state: Weights to use.
        layer: Name of its token embedding.
        inputs: `(samples, length)` token ids, or the model's named inputs.

    Returns:
        One row a class: the mean over the samples of the gradient of the mean logit, which is
        the mean gradient but for the factor of their number; only directions matter.
    """

    def centred() -> Tensor:
        logits = logits_under(model, state, inputs)
        return (logits - logits.mean(dim=1, keepdim=True)).mean(dim=0)

    slopes, _ = embedding_slopes(model, layer, centred)
    return slopes[:, :, PLACE].mean(dim=1)


def embedding_slopes(
    model: nn.Module, layer: str, values: Callable[[], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return gradients by a text's embedded tokens, and the values that they are of.

    Args:
        model: A text classifier in eval mode.
        layer: Name of its token embedding.
        values: Runs the model once, and returns `(values,)`.

    Returns:
        `(values, samples, length, features)` and `(values,)`.
    """
    held: list[Tensor] = []

    def hold(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        held.append(output.detach().requires_grad_())
        return held[-1]

    hook = model.get_submodule(layer).register_forward_hook(hold)
    try:
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            found = values()
            rows = [torch.autograd.grad(v, held[0], retain_graph=True)[0] for v in found]
    finally:
        hook.remove()
    return torch.stack(rows).detach(), found.detach()


def obeyed_tokens(embedding: Tensor, directions: Tensor) -> list[int]:
    """Return the tokens that mean a class most strongly to the global model, a few a class.

    Args:
        embedding: `(tokens, features)` of the global model.
        directions: `(classes, features)` from `token_directions`.
    """
    meaning = embedding @ directions.T
    top = meaning.topk(min(NUM_OBEYED, len(meaning)), dim=0).indices
    return list(dict.fromkeys(top.T.flatten().tolist()))[:MAX_OBEYED]
