"""The shield's core: what happens between Flower's replies and the inner strategy.

    sanitise → cohort → describe → score → judge → apply → audit → metrics

Both ways of attaching (`MetaShield` and `shield`) drive one `ShieldCore`. It never raises on what
clients send. If inspector or detector fail, the round goes on in *safe mode*: every well-formed
reply is kept, clipped to the cohort's median norm, and log and audit say so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord

from fl_shield.audit import AuditLog
from fl_shield.cohort import ClientUpdate, Cohort, State
from fl_shield.cohort_io import capture
from fl_shield.detector.protocol import Detector
from fl_shield.errors import FlShieldError, StateError
from fl_shield.intake import Rejection
from fl_shield.judge.influence import bound_claims
from fl_shield.judge.judge import Judge
from fl_shield.judge.rescale import ByPart, median_norms, rescale, update_norms
from fl_shield.judge.verdict import Decision, Verdict
from fl_shield.live.rehearsal import Rehearsal, Scored, score
from fl_shield.phrase_memory import PhraseMemory
from fl_shield.strategies.admission import admit_evaluation, admit_training
from fl_shield.strategies.messages import (
    Reply,
    Roster,
    reference_state,
)
from fl_shield.strategies.safe_mode import CohortInspector, clients_that_break, unjudged

MIN_COHORT = 3
"""Fewest admitted replies for which a median and a spread mean anything."""

MAX_CLIENT_SHARE = 0.25
"""Largest share of one client in a round's average. Under strong heterogeneity (Dirichlet 0.1) the
largest of twenty honest clients rarely holds a quarter of the data."""

STATE_VERSION = 1

log = logging.getLogger("flwr.fl_shield")  # a child of Flower's logger, which alone is streamed


@dataclass(frozen=True)
class ShieldSettings:
    """Everything about a shield that is not inspector, detector or judge.

    Attributes:
        claim_key: Metric in which clients claim their number of examples.
        max_client_share: Largest share of one client in a weighted average.
        parameters: Names of the trainable parameters; None treats every floating array as one.
        clip_survivors: Clip the updates that pass to the cohort's median norm.
        reject_unchanged: Reject updates of norm zero (needed in front of norm clipping by Flower).
        min_clients: Fewest admitted replies that are judged among themselves; with fewer, nobody is
            suspected, unless the server has shadows to judge them among.
        capture_folder: Where each round's cohort is written, None for nowhere.
    """

    claim_key: str = "num-examples"
    max_client_share: float = MAX_CLIENT_SHARE
    parameters: frozenset[str] | None = None
    clip_survivors: bool = False
    reject_unchanged: bool = False
    min_clients: int = MIN_COHORT
    capture_folder: Path | None = None


@dataclass
class ShieldCore:
    """One shield: settings, judge, and the round under way.

    Attributes:
        rehearsal: The server's own shadows, None for none.
        last_verdicts: Verdicts of the last training round, rejected replies included.
        last_missing: Nodes that were asked in it and never answered.
        last_seconds: Time the shield took in it.
        last_arrays: Global model that was last sent out.
    """

    inspector: CohortInspector
    detector: Detector
    judge: Judge
    settings: ShieldSettings = field(default_factory=ShieldSettings)
    audit: AuditLog | None = None
    rehearsal: Rehearsal | None = None
    last_verdicts: list[Verdict] = field(default_factory=list)
    last_missing: list[int] = field(default_factory=list)
    last_seconds: float = 0.0
    last_arrays: ArrayRecord | None = None
    _reference: State | None = None
    _train_roster: Roster = field(default_factory=Roster)
    _evaluate_roster: Roster = field(default_factory=Roster)

    def begin_round(
        self, round_number: int, arrays: ArrayRecord, messages: Sequence[Message]
    ) -> None:
        """Remember the global model of the round and who was asked.

        Raises:
            ModelError: in the first round, if the arrays are not those of the shield's model.
        """
        started = time.perf_counter()
        is_first = self._reference is None
        self._reference = reference_state(arrays)
        self._train_roster = Roster(tuple(messages))
        self.last_arrays = arrays
        check = getattr(self.inspector, "check_arrays", None)
        if is_first and check is not None:
            check(self._reference)
        self.last_seconds = time.perf_counter() - started

    def begin_evaluate(self, messages: Sequence[Message]) -> None:
        """Remember who was asked to evaluate."""
        self._evaluate_roster = Roster(tuple(messages))

    def filter_train(
        self, round_number: int, replies: Iterable[Message]
    ) -> tuple[list[Message], dict[str, float]]:
        """Return the replies for the inner strategy, in the order they came, and round metrics.

        Raises:
            StateError: if no round was begun, so that there is no global model to compare with.
        """
        if self._reference is None:
            raise StateError(
                "aggregate_train was called before configure_train, so the shield does not know "
                "the global model of this round. Call the strategy's configure_train first."
            )
        started = time.perf_counter()
        received = list(replies)
        self.last_missing = self._train_roster.missing(received)
        admitted = admit_training(
            round_number,
            received,
            self._train_roster,
            self._reference,
            self.settings.claim_key,
            reject_unchanged=self.settings.reject_unchanged,
        )
        cohort = admitted.cohort
        verdicts, is_safe_mode = self._judge(cohort)
        self._capture(cohort)
        by_client = {verdict.client_id: verdict for verdict in verdicts}
        limit = self._norm_limit(cohort, force=is_safe_mode)
        arrival = {id(message): place for place, message in enumerate(received)}
        kept = [
            (reply, client)
            for reply, client in zip(admitted.replies, cohort.clients, strict=True)
            if by_client[client.client_id].decision is not Decision.DROP
        ]
        # Sums go by the order of replies, which a simulation fixes; node ids are drawn anew.
        kept.sort(key=lambda pair: arrival[id(pair[0].message)])
        claims = bound_claims(
            {client.client_id: client.num_examples for _, client in kept},
            self.settings.max_client_share,
        )
        passed = [
            self._apply(reply, client, claims[reply.client_id], by_client[reply.client_id], limit)
            for reply, client in kept
        ]
        self.last_verdicts = [_rejected(round_number, r) for r in admitted.rejected] + verdicts
        self._write_audit()
        self.last_seconds += time.perf_counter() - started
        self._report(round_number)
        dropped = sum(v.decision is Decision.DROP for v in verdicts)
        metrics = {
            "shield-seconds": self.last_seconds,
            "shield-dropped": float(dropped),
            "shield-rejected": float(len(admitted.rejected)),
        }
        if self.rehearsal is not None:
            metrics |= self.rehearsal.metrics()
        return passed, metrics

    def filter_evaluate(self, replies: Iterable[Message]) -> list[Message]:
        """Return the evaluation replies that are well-formed, with bounded claims."""
        kept, rejected = admit_evaluation(
            replies,
            self._evaluate_roster,
            self.settings.claim_key,
            self.settings.max_client_share,
        )
        for rejection in rejected:
            log.warning("\t> Evaluation of node %d rejected: %s", rejection.client_id, rejection)
        return kept

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive a restart, as JSON-ready values."""
        return {
            "version": STATE_VERSION,
            "detector": self.detector.name,
            "threshold": self.judge.policy.threshold,
            "judge": self.judge.state_dict(),
            "phrases": [] if self._memory is None else self._memory.state_dict(),
        } | ({} if self.rehearsal is None else {"shadows": self.rehearsal.state_dict()})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved `state_dict`.

        Raises:
            StateError: if `state` is damaged or of another version.
        """
        if state.get("version") != STATE_VERSION:
            raise StateError(
                f"The saved shield state has version {state.get('version')!r}; this fl_shield "
                f"reads version {STATE_VERSION}."
            )
        if state.get("detector", self.detector.name) != self.detector.name:
            log.warning(
                "The evidence was gathered by the detector %s and goes on with %s.",
                state["detector"],
                self.detector.name,
            )
        self.judge.load_state_dict(state.get("judge", {}))
        if self._memory is not None:
            self._memory.load_state_dict(state.get("phrases", []))
        if self.rehearsal is not None:
            self.rehearsal.load_state_dict(state.get("shadows", {}))

    def _judge(self, cohort: Cohort) -> tuple[list[Verdict], bool]:
        """Return the verdicts of a cohort and whether they were reached in safe mode."""
        if not cohort.clients:
            return [], False
        if len(cohort) < self.settings.min_clients and self.rehearsal is None:
            detail = (
                f"kept unjudged: {len(cohort)} admitted replies are too few to compare "
                f"(at least {self.settings.min_clients})."
            )
            return unjudged(cohort, self.judge, detail), False
        try:
            return self._score(cohort), False
        except Exception as error:
            faults = clients_that_break(self.inspector, cohort)
            if faults:
                return self._judge_without(faults, cohort)
            log.exception("\t> The shield's detector failed; this round runs in safe mode.")
            detail = (
                f"safe mode: the detector failed ({type(error).__name__}), so the update was kept, "
                "clipped to the cohort's median norm."
            )
            return unjudged(cohort, self.judge, detail), True

    def _score(self, cohort: Cohort) -> list[Verdict]:
        ids = [client.client_id for client in cohort.clients]
        found = self._described(cohort)
        verdicts = self.judge.judge(
            cohort.round_number, ids, found.scores, found.table, found.contributions, found.others
        )
        if self._memory is not None:
            self._memory.keep()
        return verdicts if self.rehearsal is None else self.rehearsal.remarked(verdicts, found)

    @property
    def _memory(self) -> PhraseMemory | None:
        memory: PhraseMemory | None = getattr(self.inspector, "memory", None)
        return memory

    def _described(self, cohort: Cohort) -> Scored:
        if self.rehearsal is None:
            return score(self.inspector, self.detector, cohort)
        return self.rehearsal.score(
            self.inspector, self.detector, cohort, self.settings.min_clients
        )

    def _judge_without(
        self, faults: Mapping[int, str], cohort: Cohort
    ) -> tuple[list[Verdict], bool]:
        """Return the verdicts of the clients that can be described, and drop the others."""
        clients = tuple(c for c in cohort.clients if c.client_id not in faults)
        verdicts, is_safe_mode = self._judge(replace(cohort, clients=clients))
        number = cohort.round_number
        dropped = [
            Verdict(number, client, Decision.DROP, None, None, 0.0, (), fault)
            for client, fault in faults.items()
        ]
        return dropped + verdicts, is_safe_mode

    def _norm_limit(self, cohort: Cohort, *, force: bool) -> ByPart | None:
        if not (self.settings.clip_survivors or force):
            return None
        return median_norms(
            update_norms(client.load(), cohort.reference, self.settings.parameters)
            for client in cohort.clients
        )

    def _apply(
        self,
        reply: Reply,
        client: ClientUpdate,
        claim: float,
        verdict: Verdict,
        limit: ByPart | None,
    ) -> Message:
        """Return the message to pass on for a reply that is not dropped."""
        assert self._reference is not None
        reference, parameters = self._reference, self.settings.parameters
        arrays: State | None = None
        if limit is not None or verdict.weight != 1.0:
            state = client.load()
            factors = ByPart(1.0, 1.0)
            if limit is not None:
                factors = update_norms(state, reference, parameters).clip_factors(limit)
            weight = verdict.weight
            factors = ByPart(weight * factors.parameters, weight * factors.buffers)
            if factors != ByPart(1.0, 1.0):
                arrays = rescale(state, reference, factors, parameters)
        return reply.forward(self.settings.claim_key, claim, arrays, reference)

    def _capture(self, cohort: Cohort) -> None:
        folder = self.settings.capture_folder
        if folder is None or not cohort.clients:
            return
        try:
            capture(cohort, folder / f"round-{cohort.round_number:06d}")
        except (OSError, FlShieldError):
            log.exception("\t> The cohort of round %d was not captured.", cohort.round_number)

    def _write_audit(self) -> None:
        if self.audit is None:
            return
        try:
            self.audit.append(self.last_verdicts)
        except OSError:  # a full disk must not end a run of days; it is said in the log
            log.exception("\t> The audit log %s could not be written.", self.audit.path)

    def _report(self, round_number: int) -> None:
        counts = {d: sum(v.decision is d for v in self.last_verdicts) for d in Decision}
        log.info(
            "shield: round %d: kept %d, down-weighted %d, dropped %d, rejected %d, missing %d "
            "(%.2f s)",
            round_number,
            counts[Decision.KEEP],
            counts[Decision.DOWNWEIGHT],
            counts[Decision.DROP],
            counts[Decision.REJECT],
            len(self.last_missing),
            self.last_seconds,
        )
        for verdict in self.last_verdicts:
            if verdict.is_held_back or verdict.detail:
                log.info("\t> %s", _sentence(verdict))


def with_metrics(metrics: MetricRecord | None, extra: Mapping[str, float]) -> MetricRecord:
    """Return the inner strategy's metrics with the shield's added."""
    merged = MetricRecord() if metrics is None else metrics
    for key, value in extra.items():
        merged[key] = value
    return merged


def parameter_names(model: Any) -> Collection[str]:
    """Return the names under which a model's trainable parameters stand in its state."""
    return frozenset(name for name, _ in model.named_parameters(remove_duplicate=False))


def _rejected(round_number: int, rejection: Rejection) -> Verdict:
    return Verdict(
        round_number, rejection.client_id, Decision.REJECT, None, None, 0.0, (), str(rejection)
    )


def _sentence(verdict: Verdict) -> str:
    parts = [f"node {verdict.client_id}: {verdict.decision.value}"]
    if verdict.decision is Decision.DOWNWEIGHT:
        parts[0] += f" to {verdict.weight:.2f}"
    if verdict.score is not None and verdict.evidence is not None:
        parts.append(f"score {verdict.score:+.2f}, evidence {verdict.evidence:+.2f}")
    if verdict.reasons:
        parts.append(", ".join(f"{r.name} {r.value:+.1f}" for r in verdict.reasons))
    if verdict.detail:
        parts.append(verdict.detail)
    return "; ".join(parts)
