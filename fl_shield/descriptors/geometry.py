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
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

EPSILON = 1e-12

CHUNK = 1 << 15
"""Weights that are turned into double precision at a time: they stay in the processor's cache."""


def describe_geometry(
    update: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    total: Mapping[str, Tensor],
    head: str,
    *,
    own: float | None = None,
    count: int = 1,
    origin: float | None = None,
) -> dict[str, float]:
    """Return the geometry descriptors of one client.

    Args:
        update: Client minus global parameters, by name.
        reference: Global parameters, by name.
        total: Sum of the normalised updates whose mean the client is compared with, by name.
        head: Name of the final classification layer.
        own: Norm by which this client's own update entered that sum, None if it did not enter.
        count: Number of the other clients in the sum.
        origin: Norm of the global parameters, where it is known already.

    Returns:
        Name to value, in a fixed order.
    """
    sums = [_sums(delta, total[name], own) for name, delta in update.items()]
    parts = [squared for squared, *_ in sums]
    squared, absolute, dot, other_squared = (sum(column) for column in zip(*sums, strict=True))
    norm, other_norm = squared**0.5, other_squared**0.5 / count
    rows = head_energy(update, head)
    size = sum(d.numel() for d in update.values())
    if origin is None:
        origin = squared_norm(reference[key] for key in update) ** 0.5
    energy = torch.tensor(parts, dtype=torch.float64)
    places = torch.linspace(0, 1, len(parts), dtype=torch.float64)
    return {
        "log_norm": math.log(norm + EPSILON),
        "agreement": dot / count / (norm * other_norm + EPSILON),
        "head_share": float(rows.sum()) / (squared + EPSILON),
        "row_peak": float(rows.max() / (rows.sum() + EPSILON)),
        "sparsity": absolute / ((size**0.5) * norm + EPSILON),
        "reach": math.log((norm + EPSILON) / (origin + EPSILON)),
        "depth": float((energy * places).sum() / (energy.sum() + EPSILON)),
    }


def head_energy(update: Mapping[str, Tensor], head: str) -> Tensor:
    """Return the update's squared norm on each row (class) of the final layer, `(classes,)`."""
    prefix = f"{head}." if head else ""
    parts = [d.double().flatten(1) for key, d in update.items() if key == f"{prefix}weight"]
    parts += [d.double().reshape(-1, 1) for key, d in update.items() if key == f"{prefix}bias"]
    if not parts:  # tied heads keep their weights elsewhere
        return torch.zeros(1)
    return torch.cat(parts, dim=1).square().sum(dim=1)


def squared_norm(tensors: Iterable[Tensor]) -> float:
    """Return the sum of the squares of all numbers, in double precision."""
    total = 0.0
    for tensor in tensors:
        chunks = (chunk.double() for chunk in _chunks(tensor))
        total += float(torch.stack([torch.dot(values, values) for values in chunks]).sum())
    return total


def _sums(delta: Tensor, total: Tensor, own: float | None) -> list[float]:
    """Return Σd², Σ|d|, Σd·o and Σo² of one parameter, o being `total` less the own share."""
    found = []
    for part, others in zip(_chunks(delta), _chunks(total), strict=True):
        values, rest = part.double(), others.double()
        if own is not None:
            rest = rest - part / own
        found += [
            torch.dot(values, values),
            values.abs().sum(),
            torch.dot(values, rest),
            torch.dot(rest, rest),
        ]
    sums: list[float] = torch.stack(found).reshape(-1, 4).sum(dim=0).tolist()
    return sums


def _chunks(tensor: Tensor) -> Sequence[Tensor]:
    flat = tensor.reshape(-1)
    return (flat,) if flat.numel() <= CHUNK else torch.split(flat, CHUNK)
