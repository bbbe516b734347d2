"""How likely each client of a round is malicious: its score, its past and the company it is in.

Scores are log-odds for a round in which as many attack as do not. Rounds are not like that, so the
share of attackers is estimated along with the chances, by the EM algorithm of Saerens, Latinne and
Decaestecker (*Adjusting the outputs of a classifier to new a priori probabilities*, Neural
Computation 14(1), 2002, section 2.2), from an expectation that is worth some clients:

    p_i   = 1 / (1 + exp(−(o_i + log(share / (1 − share)))))
    share = (Σ p_i + WORTH · expected) / (clients + WORTH)

Where nobody stands out, a client that is a little odd is let through; among attackers it is not.
The worth keeps a few clear attackers from making all who are a little odd their accomplices.
The log-odds o_i of a client are those of its update and what is left of those before:

    o_t = score_t − even score + DECAY · clip(o_{t−1}, MOST_TRUST, MOST_DOUBT)

so that a client that is a little suspicious in every round is more so from round to round, and one
bad round of a client without a past weighs more than that of one without blame. The limits bound
the trust that an attacker can save up, and the time that a client needs to come back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_shield.judge.evidence import DECAY

EXPECTED_SHARE = 0.1
"""Share of attackers expected before a round is looked at."""

WORTH = 20.0
"""Clients that this expectation is worth."""

MIN_SHARE = 0.01
MAX_SHARE = 0.5
"""Limits of the share: nobody is malicious for being in company, nor above suspicion."""

MOST_TRUST = -1.0
MOST_DOUBT = 5.0

STEPS = 100
"""Steps of the EM algorithm at most."""

TOLERANCE = 1e-9


def chances(log_odds: ArrayLike, expected: float = EXPECTED_SHARE) -> NDArray[np.float64]:
    """Return how likely each client is malicious, `(clients,)` in [0, 1].

    Args:
        log_odds: `(clients,)` finite log-odds of being malicious, at even shares.
        expected: Share of attackers expected before the round is looked at.
    """
    odds = np.asarray(log_odds, dtype=np.float64)
    ordered = np.sort(odds)  # the sum shall not depend on the order of the clients
    share = expected
    for _ in range(STEPS):
        before = share
        share = _share(_chances(ordered, before), expected)
        if abs(share - before) < TOLERANCE:
            break
    return _chances(odds, share)


def remembered(log_odds: float, before: float) -> float:
    """Return the log-odds of a client with its past; `before` are those of its last round."""
    return log_odds + DECAY * min(max(before, MOST_TRUST), MOST_DOUBT)


def _share(found: NDArray[np.float64], expected: float) -> float:
    share = (float(found.sum()) + WORTH * expected) / (len(found) + WORTH)
    return min(max(share, MIN_SHARE), MAX_SHARE)


def _chances(odds: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    shifted = np.clip(odds + np.log(share / (1.0 - share)), -50.0, 50.0)
    return np.asarray(1.0 / (1.0 + np.exp(-shifted)), dtype=np.float64)
