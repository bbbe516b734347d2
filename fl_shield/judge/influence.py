"""Influence: no client weighs more in a round's average than a stated share, whatever it claims.

Averages weigh clients by the number of examples they claim, which nobody can check. Claims are
lowered to one common limit `c`, the largest for which nobody exceeds its share:

    c = max_share · Σ_i min(claim_i, c)
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate


def attainable_share(max_share: float, num_clients: int) -> float:
    """Return the share that can be kept to; some client has at least `1 / num_clients`."""
    return max(max_share, 1.0 / max(num_clients, 1))


def bound_claims(claims: Mapping[int, float], max_share: float) -> dict[int, float]:
    """Return claims by client, lowered where one exceeds its share of their sum.

    Args:
        claims: Positive finite claims by client.
        max_share: Largest share of one client, in (0, 1]; see `attainable_share` for few clients.
    """
    share = attainable_share(max_share, len(claims))
    ordered = sorted(claims.values())
    sums = list(accumulate(ordered, initial=0.0))  # by adding: differences would lose small claims
    limit = float("inf")
    for num_limited in range(len(ordered)):
        # With `num_limited` claims lowered to c: c = share · (the others' sum + num_limited · c).
        num_free = len(ordered) - num_limited
        remainder = 1.0 - share * num_limited
        if remainder <= 0.0:
            break
        limit = share * sums[num_free] / remainder
        if ordered[num_free - 1] <= limit * (1 + 1e-12):
            break
    limit = max(limit, ordered[0]) if ordered else limit
    return {client: min(claim, limit) for client, claim in claims.items()}
