"""FLARE (Wang et al., AsiaCCS 2022): trust by neighbourhood of penultimate activations.

The server reads every client's penultimate activations R_i on its own samples. With MMD² between
all pairs (unbiased, Gaussian kernel), each client votes for the nearest half of the others;
trust is the softmax of the votes. The kernel's width is the median heuristic over all activations:
a fixed width makes all kernel values vanish in hundreds of dimensions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fl_shield.baselines.observed import Floats, Observed
from fl_shield.baselines.protocol import finite

VOTE_SHARE = 0.5
"""Share of the clients that each client votes for: the nearest half."""

TEMPERATURE = 1.0
"""Temperature of the softmax over votes; 1 is the plain softmax."""


def squared_mmd(activations: list[Tensor], width: float | None = None) -> Floats:
    """Return the unbiased MMD² of all pairs, `(clients, clients)`, zero on the diagonal.

    Args:
        activations: `(samples, features)` of each client, on the same samples.
        width: σ of exp(−‖a − b‖² / 2σ²); None for the median distance between any two rows.
    """
    count = len(activations)
    if count < 2:
        return np.zeros((count, count))
    size = activations[0].shape[0]
    rows = torch.cat([a.double() for a in activations])
    rows = torch.nan_to_num(rows, nan=0.0, posinf=1e6, neginf=-1e6).clamp(-1e6, 1e6)
    rows = rows - rows.mean(dim=0)
    squared = torch.cdist(rows, rows).square()
    if width is None:
        off = squared[~torch.eye(len(rows), dtype=torch.bool, device=rows.device)]
        square_width = float(off.median())
    else:
        square_width = width**2
    if square_width <= 0.0:  # more than half of all rows are the same
        square_width = float(squared.mean()) or 1.0
    kernel = torch.exp(-squared / (2 * square_width)).reshape(count, size, count, size)
    between = kernel.sum(dim=(1, 3))
    within = (between.diagonal() - size) / max(size * (size - 1), 1)
    mmd = within[:, None] + within[None, :] - 2 * between / size**2
    mmd.fill_diagonal_(0.0)
    return np.asarray(mmd.cpu().numpy(), dtype=np.float64)


def votes(distances: Floats, share: float = VOTE_SHARE) -> Floats:
    """Return how many clients count each client among the nearest `share` of the others.

    Each client has ⌊share · n + ½⌋ votes, at most one for every other; ties go to the lower index.
    """
    count = distances.shape[0]
    if count < 2:
        return np.zeros(count)
    chosen = min(max(int(share * count + 0.5), 1), count - 1)
    others = distances + np.diag(np.full(count, np.inf))
    nearest = np.argsort(others, axis=1, kind="stable")[:, :chosen]
    return np.bincount(nearest.ravel(), minlength=count).astype(np.float64)


def trust(counts: Floats, temperature: float = TEMPERATURE) -> Floats:
    """Return the softmax of the votes: non-negative, summing to 1."""
    if not counts.size:
        return np.zeros(0)
    exponent = np.exp((counts - counts.max()) / temperature)
    return np.asarray(exponent / exponent.sum())


class FlareTrust:
    """Negated number of votes; FLARE's trust score is their softmax, in the same order."""

    name = "flare"

    def score(self, observed: Observed) -> Floats:
        """Return the negated votes `(clients,)`."""
        return finite(-votes(squared_mmd(observed.activations)))
