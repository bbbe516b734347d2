"""MESAS (Krauß and Dmitrienko, CCS 2023): six simple metrics that one attacker cannot all match.

Of each client's model W with update d = W - G, over trainable parameters:

| metric | value |
|---|---|
| cosine | 1 - cos(W, G) |
| euclid | ‖d‖ |
| count | how many parameters grew |
| variance | variance of d's entries |
| minimum | smallest absolute entry of d that is not zero |
| maximum | largest absolute entry of d |

A metric at a time, clients are pruned while statistical tests find them of more than one kind.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_shield.baselines.observed import Floats, Observed, products
from fl_shield.baselines.protocol import finite
from fl_shield.baselines.significance import beyond_the_gap, differs

METRICS = ("cosine", "euclid", "count", "variance", "minimum", "maximum")
"""The metrics, in the order of columns."""


def metrics(observed: Observed) -> Floats:
    """Return the metrics, `(clients, 6)`."""
    reference = observed.reference[None, :]
    square = float(products(reference)[0, 0])
    cross = products(observed.updates, reference)[:, 0]
    lengths = np.sqrt(np.clip(observed.norms**2 + 2 * cross + square, 0.0, None) * square)
    cosine = np.divide(square + cross, lengths, out=np.ones_like(cross), where=lengths > 0)
    rows = []
    for number, update in enumerate(observed.updates):
        sizes = np.abs(update)
        moved = sizes[sizes > 0]
        rows.append(
            (
                1.0 - float(cosine[number]),
                float(observed.norms[number]),
                float((update > 0).sum()),
                float(update.var(dtype=np.float64)),
                float(moved.min()) if moved.size else 0.0,
                float(sizes.max()) if sizes.size else 0.0,
            )
        )
    return finite(np.array(rows, dtype=np.float64).reshape(len(observed), len(METRICS)))


def pruned(values: Floats, max_pruned: int) -> NDArray[np.bool_]:
    """Return who is pruned by one metric: cut off at the widest gap while a test finds two kinds.

    Args:
        values: `(clients,)`.
        max_pruned: A cut that would prune more than these in all is not made.
    """
    out = np.zeros(len(values), dtype=np.bool_)
    while differs(values[~out]):
        kept = np.flatnonzero(~out)
        beyond = kept[beyond_the_gap(values[kept], float(np.median(values[kept])))]
        if not len(beyond) or out.sum() + len(beyond) > max_pruned:
            break
        out[beyond] = True
    return out


def votes(table: Floats) -> NDArray[np.int64]:
    """Return how many metrics prune each client, `(clients,)`; none prunes half of them.

    Args:
        table: `(clients, metrics)`.
    """
    most = max((len(table) - 1) // 2, 0)
    counts = [pruned(column, most).astype(np.int64) for column in table.T]
    return np.asarray(np.sum(counts, axis=0), dtype=np.int64)


def largest_deviation(table: Floats) -> Floats:
    """Return the largest of the deviations |v - median| / MAD over the metrics, `(clients,)`."""
    if not len(table):
        return np.zeros(0)
    away = np.abs(table - np.median(table, axis=0))
    scale = np.median(away, axis=0)
    return np.asarray(np.divide(away, scale, out=np.zeros_like(away), where=scale > 0).max(axis=1))


class MesasDeviation:
    """Largest deviation of the six metrics; MESAS itself only counts what prunes a client."""

    name = "mesas"

    def score(self, observed: Observed) -> Floats:
        """Return the deviations `(clients,)`."""
        return finite(largest_deviation(metrics(observed)))
