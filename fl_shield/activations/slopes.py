"""Slopes of the logits by the tokens of a text: where a model lets itself be pushed to a class.

A trigger is a change of the input that raises one class whatever the sample. To first order its
effect is its product with the slope of that class's logit, so that training on it turns the slopes
of *all* samples towards it: what an update adds to the mean slope looks like the trigger (Simonyan
et al., *Deep inside convolutional networks*, 2014, on slopes as images; Pal et al., *Backdoor
secrets unveiled*, ICLR 2024, on the directions that poisoned models are sensitive to).

For texts only: on left-out data sets of images the same descriptors separated nothing that others
do not, at the price of a pass back for every class.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fl_shield.activations.directions import embedding_slopes
from fl_shield.activations.penultimate import logits_under
from fl_shield.probes.probe_set import Inputs

MAX_CLASSES = 10
"""Classes whose slopes are taken, the first ones; a pass back each."""


def input_slopes(
    model: nn.Module, state: Mapping[str, Tensor], texts: Inputs, embedding: str
) -> Tensor:
    """Return `(classes, samples, features)` slopes of the centred logits, one sample at a time.

    Args:
        model: In eval mode, in which samples do not depend on each other.
        state: Weights to use.
        texts: Texts as the model takes them.
        embedding: Name of the token embedding, whose output is the input, averaged over the
            positions.
    """

    def centred() -> Tensor:
        logits = logits_under(model, state, texts)
        total = (logits - logits.mean(dim=1, keepdim=True)).sum(dim=0)
        return total[:MAX_CLASSES]

    slopes, _ = embedding_slopes(model, embedding, centred)
    return slopes.mean(dim=2)
