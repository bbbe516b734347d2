"""Dealing a training set out to clients: disjoint, complete, and nobody empty."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fl_shield.errors import ConfigurationError, expected

Parts = list[NDArray[np.int64]]
"""Sample indices of each client."""

ATTEMPTS = 100
"""Dirichlet draws before small clients are topped up from large ones."""


def iid(labels: NDArray[np.int64], num_clients: int, seed: int, min_size: int = 1) -> Parts:
    """Return a uniformly random partition into parts of (nearly) equal size.

    Raises:
        ConfigurationError: if the samples do not go round.
    """
    _check(len(labels), num_clients, min_size)
    order = np.random.default_rng(seed).permutation(len(labels))
    return [np.sort(part) for part in np.array_split(order, num_clients)]


def dirichlet(
    labels: NDArray[np.int64], num_clients: int, seed: int, alpha: float = 0.5, min_size: int = 8
) -> Parts:
    """Return a label-skewed partition (Hsu, Qi and Brown, 2019, arXiv:1909.06335).

    Each class is dealt out by its own draw from a symmetric Dirichlet distribution.

    Args:
        labels: `(samples,)` class indices.
        num_clients: Number of parts.
        seed: Seed of the draw.
        alpha: Concentration; small is skewed, large is even.
        min_size: Fewest samples of a client. When no draw of `ATTEMPTS` reaches it, the last one
            is kept and its small parts are topped up from its largest.

    Raises:
        ConfigurationError: if `alpha` is not a positive number or the samples do not go round.
    """
    if not (alpha > 0 and math.isfinite(alpha)):
        raise ConfigurationError(
            expected(
                "partition.alpha", "a number above 0", alpha, "0.1 is very skewed, 100 nearly even."
            )
        )
    _check(len(labels), num_clients, min_size)
    rng = np.random.default_rng(seed)
    parts: Parts = []
    for _ in range(ATTEMPTS):
        parts = _draw(labels, num_clients, alpha, rng)
        if min(len(part) for part in parts) >= min_size:
            break
    return [np.sort(part) for part in _topped_up(parts, min_size)]


def _draw(
    labels: NDArray[np.int64], num_clients: int, alpha: float, rng: np.random.Generator
) -> Parts:
    shares: list[list[NDArray[np.int64]]] = [[] for _ in range(num_clients)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = (np.cumsum(rng.dirichlet(np.full(num_clients, alpha))) * len(members)).astype(int)
        for share, piece in zip(shares, np.split(members, cuts[:-1]), strict=True):
            share.append(piece)
    return [np.concatenate(share) for share in shares]


def _topped_up(parts: Parts, min_size: int) -> Parts:
    parts = list(parts)
    for poor in range(len(parts)):
        while len(parts[poor]) < min_size:
            rich = max(range(len(parts)), key=lambda client: len(parts[client]))
            parts[poor] = np.append(parts[poor], parts[rich][-1])
            parts[rich] = parts[rich][:-1]
    return parts


def _check(num_samples: int, num_clients: int, min_size: int) -> None:
    if num_clients < 1 or min_size < 1:
        raise ConfigurationError(
            expected("num_clients and partition.min_size", "1 or more", (num_clients, min_size))
        )
    if num_clients * min_size > num_samples:
        raise ConfigurationError(
            expected(
                "num_clients",
                f"at most {num_samples // min_size}",
                num_clients,
                f"The {num_samples} training samples must give each client {min_size} "
                "(partition.min_size).",
            )
        )
