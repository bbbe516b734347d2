"""From replies to a cohort: what a defence may look at, once hostile replies are gone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flwr.app import Message

from fl_shield.cohort import ClientUpdate, Cohort, State
from fl_shield.intake import Intake, Rejection, cap_claims, check_claim
from fl_shield.judge.influence import bound_claims
from fl_shield.strategies.messages import Reply, Roster, keep_majority, open_replies


@dataclass(frozen=True)
class Admitted:
    """The well-formed replies of a round, in the order of their node ids.

    Attributes:
        replies: The replies, one for each client of the cohort and in its order.
        cohort: Their weights, with capped numbers of examples.
        rejected: What was wrong with the others.
    """

    replies: tuple[Reply, ...]
    cohort: Cohort
    rejected: tuple[Rejection, ...]


def admit_training(
    round_number: int,
    received: Iterable[Message],
    roster: Roster,
    reference: State,
    claim_key: str,
    *,
    reject_unchanged: bool = False,
) -> Admitted:
    """Return the training replies that fit the global model, and why others do not.

    Args:
        round_number: Round, counted from 1.
        received: Messages in any order.
        roster: Who was asked.
        reference: The global weights that were sent out.
        claim_key: Metric that holds the number of examples.
        reject_unchanged: Also reject updates of norm zero.
    """
    intake = Intake(reference, reject_unchanged=reject_unchanged)
    opened, rejected = open_replies(received, roster, with_arrays=True)
    sound: list[Reply] = []
    updates: dict[int, ClientUpdate] = {}
    for reply in opened:
        result = intake.admit(
            reply.client_id,
            reply.arrays.keys(),
            lambda reply=reply: reply.decode(reference),  # type: ignore[misc]
            reply.metrics.get(claim_key),
        )
        if isinstance(result, Rejection):
            rejected.append(result)
        else:
            sound.append(reply)
            updates[reply.client_id] = result
    kept, others = keep_majority(sound)
    kept.sort(key=lambda reply: reply.client_id)  # nothing may depend on the order of arrival
    claims = intake.cap_claims({r.client_id: updates[r.client_id].num_examples for r in kept})
    clients = tuple(ClientUpdate(c, claims[c], updates[c].load) for c in claims)
    cohort = Cohort(round_number, reference, clients)
    return Admitted(tuple(kept), cohort, (*rejected, *others))


def admit_evaluation(
    received: Iterable[Message], roster: Roster, claim_key: str, max_client_share: float = 1.0
) -> tuple[list[Message], list[Rejection]]:
    """Return the evaluation replies that are well-formed, with bounded claims, and the rest."""
    opened, rejected = open_replies(received, roster, with_arrays=False)
    sound: list[Reply] = []
    for reply in opened:
        fault = check_claim(reply.metrics.get(claim_key))
        if fault is None:
            sound.append(reply)
        else:
            rejected.append(Rejection(reply.client_id, *fault))
    kept, others = keep_majority(sound)
    capped = cap_claims({r.client_id: float(r.metrics[claim_key]) for r in kept})
    claims = bound_claims(capped, max_client_share)
    messages = [r.forward(claim_key, claims[r.client_id], None, {}) for r in kept]
    return messages, rejected + others
