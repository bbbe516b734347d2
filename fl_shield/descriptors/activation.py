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
    difference = client - reference
    typical = reference.square().sum(dim=1).mean().sqrt() + EPSILON
    cosine = torch.nn.functional.cosine_similarity(client, reference, dim=1, eps=EPSILON)
    # The small Gram matrix has the same non-zero spectrum as the covariance over features.
    gram = difference @ difference.T
    energy = gram.diagonal().sum()
    first = torch.linalg.eigvalsh(gram)[-1] if bool(energy > 0) else energy
    return {
        "mean_shift": float(difference.mean(dim=0).norm() / typical),
        "turn": float(1.0 - cosine.mean()),
        "growth": float(_log_ratio(client.norm(dim=1).mean(), reference.norm(dim=1).mean())),
        "rank_one": float(first / (energy + EPSILON)),
        "spread_ratio": float(
            _log_ratio(
                client.var(dim=0, correction=0).sum(), reference.var(dim=0, correction=0).sum()
            )
        ),
    }


def _log_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.log(numerator + EPSILON) - torch.log(denominator + EPSILON)
