"""Slopes of the logits by the input: in which direction a model lets itself be pushed to a class.

A trigger is a change of the input that raises one class whatever the sample. To first order its
effect is its product with the slope of that class's logit, so that training on it turns the slopes
of *all* samples towards it: what an update adds to the mean slope looks like the trigger (Simonyan
et al., *Deep inside convolutional networks*, 2014, on slopes as images; Pal et al., *Backdoor
secrets unveiled*, ICLR 2024, on the directions that poisoned models are sensitive to).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fl_shield.activations.directions import embedding_slopes, slopes_by
from fl_shield.activations.penultimate import logits_under
from fl_shield.probes.probe_set import Inputs

MAX_CLASSES = 10
"""Classes whose slopes are taken, the first ones; a pass back each."""


def has_slopes(inputs: Inputs, embedding: str | None) -> bool:
    """Return whether inputs can be moved: not named images, nor tokens that no embedding takes."""
    is_movable = isinstance(inputs, Tensor) and inputs.is_floating_point()
    return embedding is not None or is_movable


def input_slopes(
    model: nn.Module, state: Mapping[str, Tensor], inputs: Inputs, embedding: str | None
) -> Tensor:
    """Return `(classes, samples, features)` slopes of the centred logits, one sample at a time.

    Args:
        model: In eval mode, in which samples do not depend on each other.
        state: Weights to use.
        inputs: Images, or texts as the model takes them; such as `has_slopes` is true of.
        embedding: Name of the token embedding of texts, whose output is the input then, averaged
            over the positions; None for images.
    """

    def centred(batch: Inputs) -> Tensor:
        logits = logits_under(model, state, batch)
        total = (logits - logits.mean(dim=1, keepdim=True)).sum(dim=0)
        return total[:MAX_CLASSES]

    if embedding is not None:
        slopes, _ = embedding_slopes(model, embedding, lambda: centred(inputs))
        return slopes.mean(dim=2)
    assert isinstance(inputs, Tensor)
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        images = inputs.detach().clone().requires_grad_()
        return slopes_by(centred(images), images).flatten(2)
