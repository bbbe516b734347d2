"""Geometry descriptors: the update itself, as directions in weight space.

Only floating-point *parameters* count; BatchNorm statistics and counters never enter a norm or an
angle.

| name | formula (d = client − global, D = median-norm-normalised mean update of the others) | why |
|---|---|---|
| `log_norm` | log ‖d‖ | boosted or clipped updates |
| `agreement` | cosine of d and D | attackers pull elsewhere, or all the same way |
| `head_share` | share of ‖d‖² in the final classification layer | label-only changes live in the head |
| `row_peak` | largest share of the head's ‖d‖² on one class row | one class is being served (DeepSight's energies) |
| `sparsity` | ‖d‖₁ / (√n ‖d‖₂) | masked or projected updates |
| `reach` | log of ‖d‖ / ‖global‖ | how far this federation moves at all |
| `depth` | mean place of ‖d‖² in the order of the parameters, 0 first to 1 last | early layers learn triggers, late ones labels |
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

EPSILON = 1e-12


def describe_geometry(
    update: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    others: Mapping[str, Tensor],
    head: str,
) -> dict[str, float]:
    """Return the geometry descriptors of one client.

    Args:
        update: Client minus global parameters, by name.
        reference: Global parameters, by name.
        others: Mean of the other clients' normalised updates, by name.
        head: Name of the final classification layer.

    Returns:
        Name to value, in a fixed order.
    """
    squared = sum_of(update, lambda d: d.square().sum())
    norm = squared**0.5
    dot = sum(float((update[key].double() * others[key]).sum()) for key in update)
    other_norm = sum_of(others, lambda d: d.square().sum()) ** 0.5
    rows = head_energy(update, head)
    absolute = sum_of(update, lambda d: d.abs().sum())
    count = sum(d.numel() for d in update.values())
    origin = sum_of({key: reference[key] for key in update}, lambda w: w.square().sum()) ** 0.5
    parts = torch.stack([d.double().square().sum() for d in update.values()]).cpu()
    places = torch.linspace(0, 1, len(parts), dtype=torch.float64)
    return {
        "log_norm": math.log(norm + EPSILON),
        "agreement": dot / (norm * other_norm + EPSILON),
        "head_share": float(rows.sum()) / (squared + EPSILON),
        "row_peak": float(rows.max() / (rows.sum() + EPSILON)),
        "sparsity": absolute / ((count**0.5) * norm + EPSILON),
        "reach": math.log((norm + EPSILON) / (origin + EPSILON)),
        "depth": float((parts * places).sum() / (parts.sum() + EPSILON)),
    }


def head_energy(update: Mapping[str, Tensor], head: str) -> Tensor:
    """Return the update's squared norm on each row (class) of the final layer, `(classes,)`."""
    prefix = f"{head}." if head else ""
    parts = [d.double().flatten(1) for key, d in update.items() if key == f"{prefix}weight"]
    parts += [d.double().reshape(-1, 1) for key, d in update.items() if key == f"{prefix}bias"]
    if not parts:  # tied heads keep their weights elsewhere
        return torch.zeros(1)
    return torch.cat(parts, dim=1).square().sum(dim=1)


def sum_of(tensors: Mapping[str, Tensor], measure: object) -> float:
    """Return the sum of `measure(tensor)` over all tensors, accumulated in double precision."""
    assert callable(measure)
    return sum(float(measure(tensor.double())) for tensor in tensors.values())
