"""Activation descriptors: how an update moves the penultimate activations, per scale and view.

All take the client's and the reference model's penultimate activations on the same batch, each
`(samples, features)`. None depends on the order, the number or the scale of the neurons.

| name | formula (ΔH = client − reference activations) | why |
|---|---|---|
| `mean_shift` | ‖mean over samples of ΔH‖ / root mean square norm of the reference | FLARE's distance of mean representations, without its kernel |
| `turn` | 1 − mean cosine of client and reference activations | representations re-purposed for the trigger |
| `growth` | log of the ratio of mean activation norms | new, loud features |
| `rank_one` | share of the energy of ΔH in its first singular direction | a backdoor adds few directions |
| `spread_ratio` | log of the ratio of total variance over samples | classes drawn together or apart |
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-6


def describe_activations(client: Tensor, reference: Tensor) -> dict[str, float]:
    """Return the activation descriptors of one client on one view at one scale.

    Args:
        client: `(samples, features)` under the client's (extrapolated) weights.
        reference: `(samples, features)` under the global weights.

    Returns:
        Name to value, in a fixed order.
    """
    return {name: float(value) for name, value in activation_columns(client, reference).items()}


def activation_columns(client: Tensor, reference: Tensor) -> dict[str, Tensor]:
    """Return the activation descriptors of many clients, views and scales at once.

    Args:
        client: `(…, samples, features)` under the clients' (extrapolated) weights.
        reference: Under the global weights, of a shape that broadcasts to it.

    Returns:
        Name to values `(…)`, in a fixed order.
    """
    difference = client - reference
    typical = reference.square().sum(dim=-1).mean(dim=-1).sqrt() + EPSILON
    cosine = torch.nn.functional.cosine_similarity(client, reference, dim=-1, eps=EPSILON)
    # The small Gram matrix has the same non-zero spectrum as the covariance over features.
    gram = difference @ difference.mT
    energy = gram.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    first = torch.where(energy > 0, torch.linalg.eigvalsh(gram)[..., -1], energy)
    spread, typical_spread = (
        hidden.var(dim=-2, correction=0).sum(dim=-1) for hidden in (client, reference)
    )
    return {
        "mean_shift": difference.mean(dim=-2).norm(dim=-1) / typical,
        "turn": 1.0 - cosine.mean(dim=-1),
        "growth": _log_ratio(client.norm(dim=-1).mean(dim=-1), reference.norm(dim=-1).mean(dim=-1)),
        "rank_one": first / (energy + EPSILON),
        "spread_ratio": _log_ratio(spread, typical_spread),
    }


def _log_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.log(numerator + EPSILON) - torch.log(denominator + EPSILON)
