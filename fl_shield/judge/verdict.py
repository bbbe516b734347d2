"""Verdicts: what was decided about each client of a round, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

HELD_BACK = 0.5
"""Share of an update that is passed on, up to which it counts as held back."""


class Decision(StrEnum):
    """What happens to a reply.

    `KEEP` goes to the inner strategy unchanged, `DOWNWEIGHT` with its update scaled by the
    verdict's weight, `DROP` not at all (a suspect), `REJECT` not at all (malformed: intake).
    """

    KEEP = "keep"
    DOWNWEIGHT = "downweight"
    DROP = "drop"
    REJECT = "reject"


@dataclass(frozen=True)
class Reason:
    """One piece of evidence: a descriptor and its robust z-score in the cohort."""

    name: str
    value: float


@dataclass(frozen=True)
class Verdict:
    """The decision about one reply.

    Attributes:
        round_number: Round, counted from 1.
        client_id: Flower node id of the sender.
        decision: What happens to the reply.
        score: Log-odds of this round's update being backdoored; None if it was rejected unseen.
        evidence: Accumulated log-odds of the client over rounds; None if it was rejected unseen.
        weight: Share of its update that is passed on, in [0, 1].
        reasons: Strongest evidence first.
        detail: One sentence for a person: why a reply was rejected, or a note of the judge.
    """

    round_number: int
    client_id: int
    decision: Decision
    score: float | None
    evidence: float | None
    weight: float
    reasons: tuple[Reason, ...] = field(default=())
    detail: str = ""

    @property
    def is_held_back(self) -> bool:
        """Whether at most half of the update was passed on."""
        return self.weight <= HELD_BACK

    def as_record(self) -> dict[str, Any]:
        """Return the audit-log line of this verdict, as JSON-ready values."""
        record = asdict(self)
        record["round"] = record.pop("round_number")
        record["node_id"] = str(record.pop("client_id"))  # 64-bit ids do not survive JSON numbers
        record["decision"] = self.decision.value
        record["reasons"] = [{"name": r.name, "value": round(r.value, 4)} for r in self.reasons]
        return record
