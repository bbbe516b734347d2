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
    classes = client.shape[1]
    centred = reference - reference.mean(dim=1, keepdim=True)
    spread = centred.std() + EPSILON
    shift = (client - client.mean(dim=1, keepdim=True) - centred) / spread
    by_class = shift.mean(dim=0)
    p_client, p_reference = client.softmax(dim=1), reference.softmax(dim=1)
    chosen = client.argmax(dim=1)
    entropy_rise = _entropy(p_client).mean() - _entropy(p_reference).mean()
    return {
        "shift_low": float(by_class.min()),
        "shift_high": float(by_class.max()),
        "shift_spread": float(by_class.std(correction=0)),
        "attraction": float((p_client - p_reference).mean(dim=0).max()),
        "flips": float((chosen != reference.argmax(dim=1)).float().mean()),
        "concentration": float(torch.bincount(chosen, minlength=classes).max() / len(chosen)),
        "uncertainty": float(entropy_rise) / math.log(classes),
        "unevenness": float(shift.std(dim=0, correction=0).mean()),
    }


def describe_fit(client: Tensor, reference: Tensor, labels: Tensor | None) -> dict[str, float]:
    """Return `fit` and `fit_low` of one client at one scale.

    Args:
        client: `(samples, classes)` logits on the clean view.
        reference: The global model's.
        labels: `(samples,)` true classes, None to take the reference's predictions.
    """
    labels = reference.argmax(dim=1) if labels is None else labels
    at = labels[:, None]
    rise = client.log_softmax(dim=1).gather(1, at) - reference.log_softmax(dim=1).gather(1, at)
    rise = rise.squeeze(1).clamp(-MAX_RISE, MAX_RISE)
    means = [rise[labels == label].mean() for label in torch.unique(labels)]
    return {"fit": float(rise.mean()), "fit_low": float(torch.stack(means).min())}


def _entropy(probabilities: Tensor) -> Tensor:
    return -(probabilities * probabilities.clamp_min(EPSILON).log()).sum(dim=1)
