"""Safe mode: what happens to a round whose detector fails, or that is too small to compare.

Nobody is suspected without a detector, but what was decided stays decided: clients whom the
operator banned, or whom the evidence of earlier rounds excluded, are dropped as before. Otherwise
an attacker who can make the detector fail would be back in the next average.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Protocol

from fl_shield.cohort import ClientUpdate, Cohort
from fl_shield.descriptors.table import DescriptorTable
from fl_shield.judge.evidence import Standing
from fl_shield.judge.judge import BANNED, Judge
from fl_shield.judge.policy import Action
from fl_shield.judge.verdict import Decision, Verdict

EXCLUDED = "excluded by the evidence of earlier rounds."
BREAKS_MODEL = "the model cannot run with its weights"

log = logging.getLogger("flwr.fl_shield")


class CohortInspector(Protocol):
    """What a shield needs of `fl_shield.inspection.Inspector`."""

    def describe(self, cohort: Cohort) -> DescriptorTable:
        """Return one row of descriptors a client, in the cohort's order."""
        ...


def unjudged(cohort: Cohort, judge: Judge, detail: str) -> list[Verdict]:
    """Return verdicts without scores: keep everybody but those who are banned or excluded.

    Args:
        cohort: The clients of the round.
        judge: Knows whom the operator pinned, and who is excluded.
        detail: Why nobody was judged, in the words of the audit log.
    """
    return [_unjudged(cohort.round_number, client, judge, detail) for client in cohort.clients]


def _unjudged(round_number: int, client: ClientUpdate, judge: Judge, detail: str) -> Verdict:
    node, policy = client.client_id, judge.policy
    verdict = Verdict(round_number, node, Decision.KEEP, None, None, 1.0, (), detail)
    is_excluded = judge.evidence[node].standing is Standing.EXCLUDED
    if node in policy.banned:
        return replace(verdict, decision=Decision.DROP, weight=0.0, detail=BANNED)
    if is_excluded and node not in policy.trusted and policy.action is not Action.MONITOR:
        return replace(verdict, decision=Decision.DROP, weight=0.0, detail=EXCLUDED)
    return verdict


def clients_that_break(inspector: CohortInspector, cohort: Cohort) -> dict[int, str]:
    """Return the clients whose weights alone make the inspector fail, and how.

    Arrays may be well-formed and yet impossible, such as an index beyond an embedding. One such
    client must not put a whole round into safe mode. When everybody fails, the fault is not
    theirs, and nobody is named.
    """
    faults: dict[int, str] = {}
    for client in cohort.clients:
        try:
            inspector.describe(Cohort(cohort.round_number, cohort.reference, (client,)))
        except Exception as error:  # what hostile weights cause
            log.debug("\t> Node %d alone makes the inspector fail.", client.client_id)
            faults[client.client_id] = f"{BREAKS_MODEL} ({type(error).__name__})."
    return faults if len(faults) < len(cohort) else {}
