"""Audits after the fact: of captured rounds, judged anew, and of the log that a shield wrote.

A captured round goes through the same inspector, detector and judge as in a running federation,
and evidence accumulates over the rounds of a federation in the same way; the policy is
`monitor`, as nothing is dropped here, and so there is no largest share that may be suspected.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_shield.cohort import Cohort
from fl_shield.cohort_io import MANIFEST, read_manifest, replay
from fl_shield.detector.protocol import Detector
from fl_shield.errors import ConfigurationError, ModelError, StateError, expected
from fl_shield.inspection import Inspector
from fl_shield.judge.judge import Judge
from fl_shield.judge.policy import Action, Policy
from fl_shield.judge.verdict import HELD_BACK, Decision, Reason

MIN_CLIENTS = 3
"""Fewest clients of a round among whom anybody is suspected, as in a running shield."""

NUM_REASONS = 3


@dataclass(frozen=True)
class Finding:
    """What an audit says of one client in one captured round.

    Attributes:
        round_number: Round, counted from 1.
        client_id: Flower node id.
        num_examples: Claimed training examples, as capped by intake.
        score: Log-odds of this round's update being backdoored.
        evidence: Accumulated log-odds after the round; None if the round was too small to judge.
        suspected: Whether a shield would hold the update back.
        reasons: Descriptors with their robust z-scores, strongest first.
    """

    round_number: int
    client_id: int
    num_examples: float
    score: float
    evidence: float | None
    suspected: bool
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class ClientSummary:
    """What an audit says of one client over all captured rounds.

    Attributes:
        client_id: Flower node id.
        rounds: Rounds it took part in.
        suspected_rounds: Those in which it was suspected.
        worst: The finding of the round with its highest score.
        last: The finding of its last round.
    """

    client_id: int
    rounds: tuple[int, ...]
    suspected_rounds: tuple[int, ...]
    worst: Finding
    last: Finding


@dataclass(frozen=True)
class NodeSummary:
    """What an audit log says of one node over its rounds.

    Attributes:
        node_id: Flower node id, as text.
        rounds: Rounds with a verdict on it.
        dropped: Rounds in which its update was dropped.
        downweighted: Rounds in which half of its update or less was passed on.
        spared: Rounds in which it was suspicious and kept, because the policy said so.
        rejected: Rounds in which its reply was malformed.
        highest_score: Highest score; None if it was never scored.
        last_evidence: Evidence after its last judged round; None if it was never judged.
        reasons: Descriptors named most often where it was suspected (otherwise in all rounds),
            each with its mean robust z-score there.
        last_detail: The last sentence that the log says of it, or nothing.
    """

    node_id: str
    rounds: int
    dropped: int
    downweighted: int
    spared: int
    rejected: int
    highest_score: float | None
    last_evidence: float | None
    reasons: tuple[Reason, ...]
    last_detail: str

    @property
    def suspected(self) -> bool:
        """Whether it was held back, or would have been under another policy, in any round."""
        return self.dropped + self.downweighted + self.spared > 0


def find_captures(folder: str | Path) -> list[Path]:
    """Return the captures in a folder, by round: the folder itself, or those right in it.

    Raises:
        ConfigurationError: if there is none.
        StateError: if a manifest is damaged or of another version.
    """
    source = Path(folder)
    if (source / MANIFEST).is_file():
        return [source]
    found = [path.parent for path in source.glob(f"*/{MANIFEST}") if path.parent.name[0] != "."]
    if not found:
        raise ConfigurationError(
            expected(
                "capture",
                f"a folder with a {MANIFEST}, or a folder of such folders",
                str(folder),
                "Captures are written by MetaShield(…, capture=DIR).",
            )
        )
    return sorted(found, key=lambda path: (_round_of(path), path.name))


def audit_captures(
    captures: Iterable[str | Path],
    inspector: Inspector,
    detector: Detector,
    policy: Policy | None = None,
) -> list[Finding]:
    """Judge captured rounds in the order given and return a finding for every client of each.

    Args:
        captures: Folders of captured rounds, of one federation.
        inspector: Describes updates; of the model that was trained.
        detector: Scores descriptors.
        policy: The rule, see `audit_policy`; None takes the detector's threshold.

    Raises:
        ConfigurationError: if a folder holds no capture.
        StateError: if a capture is damaged.
        ModelError: if a capture's arrays are not those of the inspector's model.
    """
    judge = Judge(policy or audit_policy(detector))
    findings: list[Finding] = []
    for folder in captures:
        cohort = replay(folder)
        if cohort.clients:
            findings += _audit(cohort, inspector, detector, judge, str(folder))
    return findings


def audit_policy(
    detector: Detector, threshold: float | None = None, evidence_threshold: float | None = None
) -> Policy:
    """Return the rule of an audit: that of a shield which only monitors.

    Args:
        detector: Its `threshold` counts, if it has one.
        threshold: Score of one round from which a client is suspected; None takes the detector's.
        evidence_threshold: Evidence from which a client is suspected; None takes the shield's. A
            client is trusted again below half of it.

    Raises:
        ConfigurationError: if a limit is not finite.
    """
    own = float(getattr(detector, "threshold", Policy.threshold))
    limit = Policy.evidence_threshold if evidence_threshold is None else evidence_threshold
    half = Policy.readmission_threshold / Policy.evidence_threshold
    return Policy(
        Action.MONITOR,
        threshold=own if threshold is None else threshold,
        evidence_threshold=limit,
        readmission_threshold=limit * half if limit > 0.0 else limit - 1.0,
    )


def summarise_findings(findings: Iterable[Finding]) -> list[ClientSummary]:
    """Return a summary of each client, suspects first, by highest score."""
    by_client: dict[int, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_client[finding.client_id].append(finding)
    summaries = [
        ClientSummary(
            client_id=client,
            rounds=tuple(f.round_number for f in found),
            suspected_rounds=tuple(f.round_number for f in found if f.suspected),
            worst=max(found, key=lambda f: f.score),
            last=found[-1],
        )
        for client, found in by_client.items()
    ]
    return sorted(summaries, key=lambda s: (-bool(s.suspected_rounds), -s.worst.score, s.client_id))


def summarise_log(records: Iterable[Mapping[str, Any]]) -> list[NodeSummary]:
    """Return a summary of each node in the records of an audit log, suspects first.

    Args:
        records: As `fl_shield.audit.read_audit` returns them.
    """
    by_node: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        by_node[str(record["node_id"])].append(record)
    summaries = [_summarise_node(node, lines) for node, lines in by_node.items()]

    def rank(node: NodeSummary) -> tuple[bool, float, str]:
        highest = float("-inf") if node.highest_score is None else node.highest_score
        return not node.suspected, -highest, node.node_id

    return sorted(summaries, key=rank)


def _round_of(folder: Path) -> int:
    number = read_manifest(folder).get("round")
    if not isinstance(number, int):
        raise StateError(f"{folder / MANIFEST} is damaged: its round is {number!r}.")
    return number


def _audit(
    cohort: Cohort, inspector: Inspector, detector: Detector, judge: Judge, where: str
) -> list[Finding]:
    try:
        table = inspector.describe(cohort)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{where} does not run through the model: {reason}.") from error
    scores = detector.score(table)
    examples = [client.num_examples for client in cohort.clients]
    ids = [client.client_id for client in cohort.clients]
    if len(cohort) < MIN_CLIENTS:
        return [
            Finding(cohort.round_number, client, claim, score, None, False, ())
            for client, claim, score in zip(ids, examples, scores.tolist(), strict=True)
        ]
    verdicts = judge.judge(cohort.round_number, ids, scores, table, detector.contributions(table))
    inspector.memory.keep()
    return [
        Finding(
            round_number=verdict.round_number,
            client_id=verdict.client_id,
            num_examples=claim,
            score=score,
            evidence=verdict.evidence,
            suspected=bool(verdict.detail),  # `monitor` says something of suspects only
            reasons=verdict.reasons,
        )
        for verdict, claim, score in zip(verdicts, examples, scores.tolist(), strict=True)
    ]


def _summarise_node(node: str, records: Sequence[Mapping[str, Any]]) -> NodeSummary:
    decisions = Counter(str(record["decision"]) for record in records)
    spared = [r for r in records if r["decision"] == Decision.KEEP and _is_suspicious(r)]
    dropped = [r for r in records if r["decision"] == Decision.DROP]
    downweighted = [
        r
        for r in records
        if r["decision"] == Decision.DOWNWEIGHT and float(r["weight"]) <= HELD_BACK
    ]
    scores = [float(r["score"]) for r in records if r["score"] is not None]
    evidence = [float(r["evidence"]) for r in records if r["evidence"] is not None]
    details = [str(r["detail"]) for r in records if r["detail"]]
    return NodeSummary(
        node_id=node,
        rounds=len({r["round"] for r in records}),
        dropped=len(dropped),
        downweighted=len(downweighted),
        spared=len(spared),
        rejected=decisions[Decision.REJECT],
        highest_score=max(scores, default=None),
        last_evidence=evidence[-1] if evidence else None,
        reasons=_main_reasons(dropped + downweighted + spared or records),
        last_detail=details[-1] if details else "",
    )


def _is_suspicious(record: Mapping[str, Any]) -> bool:
    return str(record["detail"]).startswith("suspicious")


def _main_reasons(records: Sequence[Mapping[str, Any]]) -> tuple[Reason, ...]:
    values: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for reason in record["reasons"]:
            values[str(reason["name"])].append(float(reason["value"]))
    ranked = sorted(values, key=lambda name: (-len(values[name]), name))[:NUM_REASONS]
    return tuple(Reason(name, sum(values[name]) / len(values[name])) for name in ranked)
