"""Whole runs of hostile rounds through the real strategies, and what must hold of each round.

Every run is played twice: once with all replies, once without those that the shield rejected. What
a bad reply could change would make the two differ.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Message, MetricRecord
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    Strategy,
)
from hypothesis import strategies as st

from fl_shield.audit import read_audit
from fl_shield.judge.influence import attainable_share
from fl_shield.judge.verdict import Decision, Verdict
from fl_shield.strategies import MetaShield
from tests.strategies._hostility import HOSTILE, KINDS, ODD, impostor, late, twice
from tests.strategies._rounds import (
    InMemoryGrid,
    NormDetector,
    NormInspector,
    Weights,
    global_weights,
    honest_weights,
    make_model,
    make_probes,
    run_round,
    train_reply,
)

MAX_SHARE = 0.25
SCHEMA = frozenset({"records renamed", "extra metric", "list metric", "a thousand metrics"})
"""Kinds that are wrong only because most replies look otherwise."""

_ANY: dict[str, Any] = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
INNER: dict[str, Callable[[], Strategy]] = {
    "FedAvg": lambda: FedAvg(**_ANY),
    "FedProx": lambda: FedProx(proximal_mu=0.1, **_ANY),
    "FedAvgM": lambda: FedAvgM(server_momentum=0.5, **_ANY),
    "FedAdam": lambda: FedAdam(**_ANY),
    "FedYogi": lambda: FedYogi(**_ANY),
    "FedAdagrad": lambda: FedAdagrad(**_ANY),
    "FedMedian": lambda: FedMedian(**_ANY),
    "FedTrimmedAvg": lambda: FedTrimmedAvg(**_ANY),
    "Krum": lambda: Krum(num_malicious_nodes=1, **_ANY),
    "MultiKrum": lambda: MultiKrum(num_malicious_nodes=1, num_nodes_to_select=2, **_ANY),
    "Bulyan": lambda: Bulyan(num_malicious_nodes=1, **_ANY),
    "DP": lambda: DifferentialPrivacyServerSideFixedClipping(
        FedAvg(**_ANY), noise_multiplier=0.0, clipping_norm=1.0, num_sampled_clients=4
    ),
}
"""Strategies behind the shield; none draws random numbers, so that two runs can be compared."""

DETECTORS = ("shipped", "norm", "failing")


@dataclass(frozen=True)
class Plan:
    """A run.

    Attributes:
        inner: Name of the strategy behind the shield.
        detector: `shipped`, `norm`, or one that fails.
        options: Of the shield.
        rounds: What every node does in every round: a kind, or `moves`, which is an honest client
            that comes back under another identity.
        seed: Of everything drawn.
    """

    inner: str
    detector: str
    options: Mapping[str, Any]
    rounds: tuple[tuple[str, ...], ...]
    seed: int


ROUND = st.lists(
    st.one_of(st.sampled_from(["honest", "honest", "sybil"]), st.sampled_from([*KINDS, "moves"])),
    min_size=1,
    max_size=9,
).map(tuple)

PLANS = st.builds(
    Plan,
    inner=st.sampled_from(sorted(INNER)),
    detector=st.sampled_from(["norm", "norm", "norm", "failing", "shipped"]),
    options=st.fixed_dictionaries(
        {
            "policy": st.sampled_from(["graded", "drop", "downweight", "monitor"]),
            "clip_survivors": st.booleans(),
            "max_drop_share": st.sampled_from([0.2, 0.45]),
        }
    ),
    rounds=st.lists(ROUND, min_size=1, max_size=4).map(tuple),
    seed=st.integers(0, 2**16),
)


@dataclass
class Tally:
    """What was driven, and what became of it.

    Attributes:
        rounds: Rounds played.
        replies: Replies sent, by kind.
        decisions: Verdicts, by decision.
        reasons: Rejections, by reason.
        inner: Rounds, by strategy behind the shield.
        empty: Rounds that kept the old model.
    """

    rounds: int = 0
    replies: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    inner: Counter[str] = field(default_factory=Counter)
    empty: int = 0


class FailingDetector(NormDetector):
    """Fails on every round."""

    def score(self, table: Any) -> Any:
        """Raise."""
        raise RuntimeError("this detector fails")


def make_shield(plan: Plan, claims: list[dict[int, float]], audit: Path | None) -> MetaShield:
    """Return a fresh shield of the plan; `claims` gets what reaches the strategy behind it."""
    inner = INNER[plan.inner]()
    aggregate = inner.aggregate_train

    def recording(server_round: int, replies: Iterable[Message]) -> Any:
        received = list(replies)
        claims.append({m.metadata.src_node_id: _claim(m) for m in received})
        return aggregate(server_round, received)

    inner.aggregate_train = recording  # type: ignore[method-assign]
    options: dict[str, Any] = {**plan.options, "audit_log": audit, "max_client_share": MAX_SHARE}
    if plan.detector != "shipped":
        options["inspector"] = NormInspector()
        options["detector"] = NormDetector() if plan.detector == "norm" else FailingDetector()
    return MetaShield(inner, make_model(), make_probes(), **options)


def _claim(message: Message) -> float:
    record = next(iter(message.content.metric_records.values()))
    return float(record["num-examples"])  # type: ignore[arg-type]


def answers(plan: Plan, number: int, messages: list[Message], reference: Weights) -> list[Message]:
    """Return the replies of a round, in the order of the nodes."""
    replies: list[Message] = []
    ordered = sorted(messages, key=lambda m: m.metadata.dst_node_id)
    kinds = dict(zip(nodes_of(plan, number), plan.rounds[number - 1], strict=True))
    for message in ordered:
        node = message.metadata.dst_node_id
        kind = kinds[node]
        noise = 7 if kind == "sybil" else plan.seed + 100 * number + node
        weights = honest_weights(noise, reference)
        if kind in HOSTILE or kind in ODD:
            replies.append((HOSTILE.get(kind) or ODD[kind])(message, weights))
        elif kind == "twice":
            replies += twice(message, weights)
        elif kind == "late":
            replies.append(late(message, weights))
        elif kind == "impostor":
            victim = ordered[0].metadata.dst_node_id
            replies.append(impostor(message, weights, victim if victim != node else node + 10**6))
        elif kind != "silent":
            replies.append(train_reply(message, weights))
    return replies


def nodes_of(plan: Plan, number: int) -> list[int]:
    """Return the node ids of a round; whoever moves has a new one."""
    kinds = plan.rounds[number - 1]
    return [i + 1 + (1000 * number if kind == "moves" else 0) for i, kind in enumerate(kinds)]


def play(plan: Plan, folder: Path, tally: Tally | None = None) -> None:
    """Play a run and assert what must hold of every round."""
    tally = Tally() if tally is None else tally
    claims: list[dict[int, float]] = []
    twin_claims: list[dict[int, float]] = []
    audit = folder / "audit.jsonl"
    audit.unlink(missing_ok=True)
    shield, twin = make_shield(plan, claims, audit), make_shield(plan, twin_claims, None)
    reference = global_weights()
    logged = 0
    for number in range(1, len(plan.rounds) + 1):
        nodes = nodes_of(plan, number)
        replies: list[Message] = []
        asked: list[int] = []  # in the order in which the grid numbers the messages

        def all_of_them(
            messages: list[Message],
            number: int = number,
            sent: Weights = reference,
            replies: list[Message] = replies,
            asked: list[int] = asked,
        ) -> list[Message]:
            asked += [message.metadata.dst_node_id for message in messages]
            replies += answers(plan, number, messages, sent)
            return replies

        # Flower samples nodes with the global generator.
        random.seed(plan.seed)
        found, metrics = run_round(shield, number, reference, InMemoryGrid(nodes), all_of_them)
        verdicts = list(shield.last_verdicts)
        admitted = {v.client_id for v in verdicts if v.decision is not Decision.REJECT}
        _check_verdicts(plan, number, nodes, verdicts, shield.last_missing)
        own = {f"message-{i + 1}": node for i, node in enumerate(asked)}
        sound = [r for r in replies if _is_own(r, own) and r.metadata.src_node_id in admitted]

        def only_sound(_messages: list[Message], sound: list[Message] = sound) -> list[Message]:
            return sound

        random.seed(plan.seed)
        grid = InMemoryGrid(nodes)
        wanted, _ = run_round(twin, number, reference, grid, only_sound)
        _check_twins(found, wanted, verdicts, twin.last_verdicts)
        _check_model(found, reference)
        for shares in claims[-1:] if found is not None else []:
            bound = attainable_share(MAX_SHARE, len(shares))
            assert max(shares.values()) <= bound * sum(shares.values()) * (1 + 1e-6)
        assert metrics is None or isinstance(metrics, MetricRecord)
        records = read_audit(audit)[logged:]
        assert [r["node_id"] for r in records] == [str(v.client_id) for v in verdicts]
        logged += len(records)
        _count(tally, plan, number, verdicts, found)
        if found is not None:
            reference = found


def _is_own(reply: Message, own: Mapping[str, int]) -> bool:
    """Return whether a node answers the message that it was sent in this round."""
    return own.get(reply.metadata.reply_to_message_id) == reply.metadata.src_node_id


def _check_verdicts(
    plan: Plan, number: int, nodes: list[int], verdicts: list[Verdict], missing: list[int]
) -> None:
    kinds = dict(zip(nodes, plan.rounds[number - 1], strict=True))
    decisions = {v.client_id: v.decision for v in verdicts}
    for verdict in verdicts:
        assert verdict.decision is not Decision.REJECT or verdict.detail
        assert len(verdict.detail) < 400
        assert verdict.detail.isprintable(), verdict.detail
        json.dumps(verdict.as_record(), allow_nan=False)
    for node, kind in kinds.items():
        if kind == "silent":
            assert node in missing
        elif kind != "impostor":
            assert node in decisions
    is_usual = SCHEMA.isdisjoint(kinds.values())
    for node, kind in kinds.items():
        if KINDS.get(kind) == "rejected" and kind not in SCHEMA and kind != "impostor":
            assert decisions[node] is Decision.REJECT, kind
        if kind in ("honest", "sybil", "moves") and is_usual:
            assert decisions[node] is not Decision.REJECT, kind


def _check_twins(
    found: Weights | None,
    wanted: Weights | None,
    verdicts: list[Verdict],
    twin_verdicts: list[Verdict],
) -> None:
    judged = [v for v in verdicts if v.decision is not Decision.REJECT]
    assert judged == twin_verdicts
    assert (found is None) == (wanted is None)
    if found is not None and wanted is not None:
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array)


def _check_model(found: Weights | None, reference: Weights) -> None:
    if found is None:
        return
    assert set(found) == set(reference)
    for name, array in reference.items():
        assert found[name].shape == array.shape
        assert np.isfinite(found[name]).all()


def _count(
    tally: Tally, plan: Plan, number: int, verdicts: list[Verdict], found: Weights | None
) -> None:
    tally.rounds += 1
    tally.inner[plan.inner] += 1
    tally.replies.update(plan.rounds[number - 1])
    tally.empty += found is None
    for verdict in verdicts:
        tally.decisions[verdict.decision.value] += 1
        if verdict.decision is Decision.REJECT:
            tally.reasons[verdict.detail.partition(":")[0]] += 1
