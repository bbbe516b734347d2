"""Evidence: what the rounds so far say about each client, as one running log-odds.

A sequential test (Wald, *Sequential Analysis*, 1947) with forgetting: after each round

    e_t = clip(decay · e_{t−1} + (score − offset), lower, upper).

A stealthy attacker who stays below the limit of every single round still adds up, and a benign
client that was unlucky once drains away. `lower` bounds the trust that can be saved up before an
attack, `upper` the time a client needs to come back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fl_shield.errors import ConfigurationError, StateError, expected, raise_all

MAX_CLIENTS = 100_000
"""Clients remembered by default; without authentication identities are free, memory is not."""


DECAY = 0.8
"""Share of the evidence kept by default: a client's last handful of rounds decide."""


class Standing(StrEnum):
    """How a client stands with the judge; transitions are in `fl_shield.judge.judge`."""

    TRUSTED = "trusted"
    SUSPECT = "suspect"
    EXCLUDED = "excluded"
    READMITTED = "readmitted"


@dataclass(frozen=True)
class ClientRecord:
    """What is remembered of one client.

    Attributes:
        evidence: Running log-odds that it is malicious.
        standing: Its standing after the last round it took part in.
        last_seen: That round.
        suspicion: Running log-odds by which `graded` weighs (`fl_shield.judge.posterior`).
    """

    evidence: float = 0.0
    standing: Standing = Standing.TRUSTED
    last_seen: int = 0
    suspicion: float = 0.0


class EvidenceBook:
    """Running evidence of a bounded number of clients.

    Args:
        decay: Share of the old evidence that is kept each round, in [0, 1].
        offset: Score that counts as no evidence at all; benign scores should lie below it.
        lower: Smallest evidence, at most 0.
        upper: Largest evidence, at least 0.
        max_clients: Clients remembered; beyond it the one unseen for longest is forgotten.

    Raises:
        ConfigurationError: naming every argument that is out of range.
    """

    def __init__(
        self,
        *,
        decay: float = DECAY,
        offset: float = 0.0,
        lower: float = -5.0,
        upper: float = 10.0,
        max_clients: int = MAX_CLIENTS,
    ) -> None:
        problems = []
        if not 0.0 <= decay <= 1.0:
            problems.append(expected("evidence decay", "between 0 and 1", decay))
        if not math.isfinite(offset):
            problems.append(expected("evidence offset", "a finite number", offset))
        if not (math.isfinite(lower) and lower <= 0.0):
            problems.append(expected("evidence lower", "finite and at most 0", lower))
        if not (math.isfinite(upper) and upper >= 0.0):
            problems.append(expected("evidence upper", "finite and at least 0", upper))
        if max_clients < 1:
            problems.append(expected("max_clients", "a positive integer", max_clients))
        raise_all(problems, ConfigurationError)
        self.decay, self.offset, self.lower, self.upper = decay, offset, lower, upper
        self.max_clients = max_clients
        self._records: dict[int, ClientRecord] = {}  # in the order of `last_seen`, oldest first

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[int]:
        return iter(self._records)

    def __getitem__(self, client_id: int) -> ClientRecord:
        """Return the record of a client; a client never seen is trusted, with no evidence."""
        return self._records.get(client_id, ClientRecord())

    def weigh(self, client_id: int, score: float) -> float:
        """Return the evidence of a client after a round with this score; nothing is stored."""
        moved = self.decay * self[client_id].evidence + (score - self.offset)
        return min(max(moved, self.lower), self.upper)

    def store(self, client_id: int, record: ClientRecord) -> None:
        """Remember a client as seen last, and forget whoever no longer fits.

        Excluded clients are forgotten only when nobody else is left: otherwise a crowd of new
        identities could wash an exclusion out of the book.
        """
        self._records.pop(client_id, None)
        self._records[client_id] = record
        if len(self._records) > self.max_clients:
            others = (c for c, r in self._records.items() if r.standing is not Standing.EXCLUDED)
            oldest = next(others, next(iter(self._records)))
            del self._records[oldest]

    def state_dict(self) -> dict[str, Any]:
        """Return the records as JSON-ready values, oldest first (64-bit ids as text)."""
        return {
            "clients": [
                [str(client), r.evidence, r.standing.value, r.last_seen, r.suspicion]
                for client, r in self._records.items()
            ]
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the records by those of `state_dict`.

        Raises:
            StateError: if `state` was not written by `state_dict`.
        """
        try:
            records = {
                int(client): ClientRecord(
                    float(evidence), Standing(standing), int(seen), *map(float, suspicion)
                )
                for client, evidence, standing, seen, *suspicion in state["clients"]
            }
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"The saved evidence cannot be read ({error!r}).") from error
        if not all(math.isfinite(r.evidence + r.suspicion) for r in records.values()):
            raise StateError("The saved evidence cannot be read: a value is not finite.")
        self._records = dict(list(records.items())[-self.max_clients :])
