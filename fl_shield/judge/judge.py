"""The judge: scores of a round become verdicts, remembering earlier rounds.

Each client has a standing. What moves it is the *signal* of the round, the first that applies:

    HIGH     evidence ≥ evidence threshold
    FLAGGED  score ≥ threshold
    LOW      evidence < readmission threshold
    MIDDLE   none of these

    from, signal    HIGH       FLAGGED    MIDDLE       LOW
    trusted         excluded   suspect    trusted      trusted
    suspect         excluded   suspect    suspect      trusted
    excluded        excluded   excluded   excluded     readmitted
    readmitted      excluded   excluded   readmitted   readmitted

A client is *flagged* in a round whose signal is FLAGGED or after which it is excluded. Flagged
updates are dropped, down-weighted or only reported, as the policy says, never more than its share
of a round: the most suspicious first, ties broken by client id so that order does not matter. The
policy `graded` passes the others on by the chance that they are benign, if that is high
(`fl_shield.judge.posterior`).

What the operator says of a node stands above that: trusted nodes are kept and banned ones dropped,
and neither counts towards the share. Their evidence is gathered all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_shield.descriptors.table import DescriptorTable
from fl_shield.errors import FlShieldError
from fl_shield.judge.evidence import ClientRecord, EvidenceBook, Standing
from fl_shield.judge.policy import Action, Policy
from fl_shield.judge.posterior import chances, remembered
from fl_shield.judge.verdict import Decision, Reason, Verdict

NUM_REASONS = 3
"""Reasons named in a verdict."""

BANNED = "banned by the operator."
"""What verdicts say of banned nodes."""


class Signal(StrEnum):
    """What a round says about a client."""

    HIGH = "high"
    FLAGGED = "flagged"
    MIDDLE = "middle"
    LOW = "low"


TRANSITIONS: Mapping[Standing, Mapping[Signal, Standing]] = {
    Standing.TRUSTED: {
        Signal.HIGH: Standing.EXCLUDED,
        Signal.FLAGGED: Standing.SUSPECT,
        Signal.MIDDLE: Standing.TRUSTED,
        Signal.LOW: Standing.TRUSTED,
    },
    Standing.SUSPECT: {
        Signal.HIGH: Standing.EXCLUDED,
        Signal.FLAGGED: Standing.SUSPECT,
        Signal.MIDDLE: Standing.SUSPECT,
        Signal.LOW: Standing.TRUSTED,
    },
    Standing.EXCLUDED: {
        Signal.HIGH: Standing.EXCLUDED,
        Signal.FLAGGED: Standing.EXCLUDED,
        Signal.MIDDLE: Standing.EXCLUDED,
        Signal.LOW: Standing.READMITTED,
    },
    Standing.READMITTED: {
        Signal.HIGH: Standing.EXCLUDED,
        Signal.FLAGGED: Standing.EXCLUDED,
        Signal.MIDDLE: Standing.READMITTED,
        Signal.LOW: Standing.READMITTED,
    },
}


class Judge:
    """Turns the scores of a round into verdicts.

    Args:
        policy: The rule; defaults to dropping.
        evidence: The book of running evidence; defaults to an empty one.
    """

    def __init__(self, policy: Policy | None = None, evidence: EvidenceBook | None = None) -> None:
        self.policy = policy or Policy()
        self.evidence = EvidenceBook() if evidence is None else evidence

    def judge(
        self,
        round_number: int,
        client_ids: Sequence[int],
        scores: NDArray[np.float64],
        table: DescriptorTable,
        contributions: NDArray[np.float64],
        others: int = 0,
    ) -> list[Verdict]:
        """Return a verdict for each client, in the order of `client_ids`, and remember the round.

        Args:
            round_number: Round, counted from 1.
            client_ids: `(clients,)` distinct node ids.
            scores: `(clients,)` log-odds of a backdoor.
            table: Descriptors of the same clients, whose z-scores become reasons.
            contributions: `(clients, descriptors)` parts of the scores.
            others: Honest updates of the server's own that the clients were judged among; they
                count in the round of which only a share may be dropped.

        Raises:
            FlShieldError: if the detector returned scores that are not finite or of another
                length; nothing is remembered then.
        """
        scores = np.asarray(scores, dtype=np.float64)
        if scores.shape != (len(client_ids),) or not bool(np.isfinite(scores).all()):
            raise FlShieldError(
                f"The detector must return {len(client_ids)} finite scores, got shape "
                f"{scores.shape}."
            )
        evidences: dict[int, float] = {}
        margins: dict[int, float] = {}
        flagged: set[int] = set()
        suspicions = self._suspicions(client_ids, scores)
        weights = dict.fromkeys(client_ids, 1.0) | self._weights(suspicions)
        lessened: list[int] = []
        for client, score in zip(client_ids, scores.tolist(), strict=True):
            evidence = self.evidence.weigh(client, score)
            signal = self._signal(score, evidence)
            standing = TRANSITIONS[self.evidence[client].standing][signal]
            record = ClientRecord(evidence, standing, round_number, suspicions.get(client, 0.0))
            self.evidence.store(client, record)
            evidences[client] = evidence
            margins[client] = self.policy.margin(score, evidence)
            is_pinned = client in self.policy.trusted or client in self.policy.banned
            is_flagged = signal is Signal.FLAGGED or standing is Standing.EXCLUDED
            if is_pinned:
                continue
            if is_flagged:
                flagged.add(client)
            if is_flagged or weights[client] < 1.0:
                lessened.append(client)
        worst = {
            c: (0, -margins[c], c) if c in flagged else (1, -suspicions[c], c) for c in lessened
        }
        lessened.sort(key=worst.__getitem__)
        allowed = set(lessened[: self.policy.max_flagged(len(client_ids) + others)])
        reasons = _reasons(table, contributions, len(client_ids))
        verdicts = []
        for row, client in enumerate(client_ids):
            decision, weight, detail = self._pinned(client, margins[client]) or self._decide(
                weights[client], margins[client], client in flagged, client in allowed
            )
            verdicts.append(
                Verdict(
                    round_number=round_number,
                    client_id=client,
                    decision=decision,
                    score=float(scores[row]),
                    evidence=evidences[client],
                    weight=weight,
                    reasons=reasons[row],
                    detail=detail,
                )
            )
        return verdicts

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered of earlier rounds, as JSON-ready values."""
        return {"evidence": self.evidence.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved `state_dict`.

        Raises:
            StateError: if `state` was not written by `state_dict`.
        """
        self.evidence.load_state_dict(state.get("evidence", {}))

    def _signal(self, score: float, evidence: float) -> Signal:
        if evidence >= self.policy.evidence_threshold:
            return Signal.HIGH
        if score >= self.policy.threshold:
            return Signal.FLAGGED
        if evidence < self.policy.readmission_threshold:
            return Signal.LOW
        return Signal.MIDDLE

    def _pinned(self, client: int, margin: float) -> tuple[Decision, float, str] | None:
        if client in self.policy.banned:
            return Decision.DROP, 0.0, BANNED
        if client in self.policy.trusted:
            is_odd = "suspicious, kept because the operator trusts this node."
            return Decision.KEEP, 1.0, is_odd if margin >= 0.0 else ""
        return None

    def _suspicions(
        self, client_ids: Sequence[int], scores: NDArray[np.float64]
    ) -> dict[int, float]:
        """Return the clients' running log-odds; none where the policy does not weigh by them."""
        even = self.policy.even_score
        if even is None or self.policy.action is not Action.GRADED:
            return {}
        return {
            client: remembered(score - even, self.evidence[client].suspicion)
            for client, score in zip(client_ids, scores.tolist(), strict=True)
        }

    def _weights(self, suspicions: Mapping[int, float]) -> dict[int, float]:
        """Return the shares of updates to pass on that are not flagged."""
        found = chances(list(suspicions.values()), self.policy.expected_share).tolist()
        return {c: self.policy.graded_weight(p) for c, p in zip(suspicions, found, strict=True)}

    def _decide(
        self, graded: float, margin: float, is_flagged: bool, is_allowed: bool
    ) -> tuple[Decision, float, str]:
        if not is_flagged:
            weight = graded if is_allowed else 1.0
            return (Decision.KEEP if weight == 1.0 else Decision.DOWNWEIGHT), weight, ""
        if self.policy.action is Action.MONITOR:
            return Decision.KEEP, 1.0, "suspicious, kept because the policy is 'monitor'."
        if not is_allowed:
            share = f"{self.policy.max_drop_share:.0%}"
            return Decision.KEEP, 1.0, f"suspicious, kept because {share} of a round is the limit."
        if self.policy.action is Action.DOWNWEIGHT:
            return Decision.DOWNWEIGHT, self.policy.partial_weight(margin), ""
        return Decision.DROP, 0.0, ""


def _reasons(
    table: DescriptorTable, contributions: NDArray[np.float64], num_clients: int
) -> list[tuple[Reason, ...]]:
    """Return each client's strongest descriptors with their z-scores, strongest first."""
    parts = np.asarray(contributions, dtype=np.float64)
    if parts.shape != (num_clients, len(table.names)):
        return [()] * num_clients  # a detector that cannot explain itself still judges
    parts = np.nan_to_num(parts)
    order = np.argsort(-parts, axis=1, kind="stable")[:, :NUM_REASONS]
    return [
        tuple(Reason(table.names[c], float(table.standardised[row, c])) for c in columns)
        for row, columns in enumerate(order)
    ]
