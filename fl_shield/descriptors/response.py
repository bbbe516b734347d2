"""Response descriptors: how an update moves the logits, per scale and view.

All take the client's and the reference (global) model's logits on the same batch, each
`(samples, classes)`, and return floats without dimension: shifts are divided by the spread of the
reference logits, so that a 2-class Transformer and a 10-class CNN read alike. None depends on the
order of the classes.

| name | formula (ΔL = centred client logits − centred reference logits, over their spread) | why |
|---|---|---|
| `shift_low` | min over classes of mean over samples of ΔL | a backdoor pulls one class down everywhere or lifts only one |
| `shift_high` | max over classes of mean over samples of ΔL | lifting the target class leaks onto clean inputs |
| `shift_spread` | standard deviation over classes of the mean ΔL | how one-sided the push is |
| `attraction` | max over classes of the mean rise in probability | untriggered inputs drawn to the target |
| `flips` | share of samples whose predicted class changes | plain damage |
| `concentration` | largest share of predictions falling on one class | everything becomes the target |
| `uncertainty` | mean rise in predictive entropy, over log(classes) | poisoned labels blur, or sharpen, decisions |
| `unevenness` | mean over classes of the standard deviation over samples of ΔL | shifts that depend on the input |
| `fit` | mean rise of log p(label), clean view only; without labels, of the reference's prediction | honest training helps the task |
| `fit_low` | min over classes of that mean over the class's samples | one class paid for the rest |
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fl_shield.descriptors.excess import logit_shift

EPSILON = 1e-6

MAX_RISE = 20.0
"""Log-probabilities are compared up to this difference."""


def describe_response(client: Tensor, reference: Tensor) -> dict[str, float]:
    """Return the response descriptors of one client on one view at one scale.

    Args:
        client: `(samples, classes)` logits under the client's (extrapolated) weights.
        reference: `(samples, classes)` logits under the global weights.

    Returns:
        Name to value, in a fixed order.
    """
    return {name: float(value) for name, value in response_columns(client, reference).items()}


def response_columns(client: Tensor, reference: Tensor) -> dict[str, Tensor]:
    """Return the response descriptors of many clients, views and scales at once.

    Args:
        client: `(…, samples, classes)` logits under the clients' (extrapolated) weights.
        reference: The global model's, of a shape that broadcasts to it.

    Returns:
        Name to values `(…)`, in a fixed order.
    """
    classes = client.shape[-1]
    shift = logit_shift(client, reference)
    by_class = shift.mean(dim=-2)
    p_client, p_reference = client.softmax(dim=-1), reference.softmax(dim=-1)
    chosen = client.argmax(dim=-1)
    entropy_rise = _entropy(p_client).mean(dim=-1) - _entropy(p_reference).mean(dim=-1)
    flipped = chosen != reference.argmax(dim=-1)
    counts = torch.nn.functional.one_hot(chosen, classes).sum(dim=-2)
    return {
        "shift_low": by_class.amin(dim=-1),
        "shift_high": by_class.amax(dim=-1),
        "shift_spread": by_class.std(dim=-1, correction=0),
        "attraction": (p_client - p_reference).mean(dim=-2).amax(dim=-1),
        "flips": flipped.float().mean(dim=-1),
        "concentration": counts.amax(dim=-1) / chosen.shape[-1],
        "uncertainty": entropy_rise.double() / math.log(classes),
        "unevenness": shift.std(dim=-2, correction=0).mean(dim=-1),
    }


def fit_columns(client: Tensor, reference: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
    """Return `fit` and `fit_low` of many clients and scales, name to values `(…)`.

    Args:
        client: `(…, samples, classes)` logits on the clean view.
        reference: `(samples, classes)`, the global model's.
        labels: `(samples,)` true classes, None to take the reference's predictions.
    """
    labels = reference.argmax(dim=1) if labels is None else labels
    at = labels.expand(client.shape[:-1]).unsqueeze(-1)
    rise = client.log_softmax(dim=-1).gather(-1, at).squeeze(-1)
    rise = rise - reference.log_softmax(dim=-1).gather(-1, labels[:, None]).squeeze(-1)
    rise = rise.clamp(-MAX_RISE, MAX_RISE)
    means = [rise[..., labels == label].mean(dim=-1) for label in torch.unique(labels)]
    return {"fit": rise.mean(dim=-1), "fit_low": torch.stack(means).amin(dim=0)}


def _entropy(probabilities: Tensor) -> Tensor:
    return -(probabilities * probabilities.clamp_min(EPSILON).log()).sum(dim=-1)
