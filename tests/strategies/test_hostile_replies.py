"""Whatever one client sends, the others' aggregate is what it would have been without it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    Strategy,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_shield.judge.verdict import Decision
from fl_shield.strategies import MetaShield, shield
from tests.strategies._hostility import HOSTILE, Answer, W, claiming
from tests.strategies._rounds import (
    InMemoryGrid,
    ScriptedDetector,
    Weights,
    error_reply,
    global_weights,
    honest_weights,
    make_model,
    make_probes,
    run_round,
    to_record,
    train_reply,
)

NODES = list(range(11, 19))
BAD = NODES[-1]
INNER: dict[str, Callable[[], Strategy]] = {
    "FedAvg": FedAvg,
    "FedProx": lambda: FedProx(proximal_mu=0.1),
    "FedAdam": FedAdam,
    "FedMedian": FedMedian,
    "FedTrimmedAvg": FedTrimmedAvg,
    "DP": lambda: DifferentialPrivacyServerSideFixedClipping(
        FedAvg(), noise_multiplier=0.0, clipping_norm=1.0, num_sampled_clients=len(NODES) - 1
    ),
}


def aggregate(
    strategy: Strategy, nodes: list[int], bad: Answer | None, rounds: int = 2
) -> Weights | None:
    reference: Weights = global_weights()
    grid = InMemoryGrid(nodes)

    def answer(messages: list[Message]) -> list[Message]:
        replies = []
        for message in sorted(messages, key=lambda m: m.metadata.dst_node_id):
            node = message.metadata.dst_node_id
            weights = honest_weights(node, reference)
            hostile = bad is not None and node == BAD
            replies.append(bad(message, weights) if hostile else train_reply(message, weights))  # type: ignore[misc]
        return replies

    for number in range(1, rounds + 1):
        result, _ = run_round(strategy, number, reference, grid, answer)
        if result is None:
            return None
        reference = result
    return reference


def quiet(strategy: Strategy, **options: Any) -> MetaShield:
    """Shield with a detector that suspects nobody: what is rejected is malformed."""
    return MetaShield(strategy, make_model(), make_probes(), detector=NOBODY, **options)


class _Nobody(ScriptedDetector):
    def score(self, table):  # type: ignore[no-untyped-def]
        return np.full(len(table), -5.0)


NOBODY = _Nobody(())


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_bad_reply_changes_nothing(inner: str, hostile: str) -> None:
    shielded = quiet(INNER[inner]())
    found = aggregate(shielded, NODES, HOSTILE[hostile])
    wanted = aggregate(INNER[inner](), NODES[:-1], None)
    assert found is not None
    assert wanted is not None
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6, atol=1e-7)
    named = [v for v in shielded.last_verdicts if v.decision is Decision.REJECT]
    assert [verdict.client_id for verdict in named] == [BAD]
    assert named[0].detail


@pytest.mark.parametrize("claim", [10**15, 2**62, 1e300])
def test_an_inflated_claim_is_capped(claim: float) -> None:
    strategy = quiet(FedAvg())
    found = aggregate(strategy, NODES, claiming(claim), rounds=1)
    reference = global_weights()
    honest = {node: honest_weights(node, reference)[W] for node in NODES}
    # A quarter of the whole: x = 0.25 · (7 · 10 + x).
    weights = {node: 70 / 3 if node == BAD else 10.0 for node in NODES}
    wanted = sum(weights[n] * honest[n] for n in NODES) / sum(weights.values())
    assert found is not None
    np.testing.assert_allclose(found[W], wanted, rtol=1e-5)


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(["honest", *HOSTILE]), min_size=1, max_size=8), st.integers(0, 2**16)
)
def test_any_mixture_leaves_a_finite_model(kinds: list[str], seed: int) -> None:
    # Flower waits for two nodes by default, for ever if need be.
    inner = FedAvg(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
    strategy = MetaShield(inner, make_model(), make_probes())
    reference = global_weights()
    grid = InMemoryGrid(list(range(1, len(kinds) + 1)))

    def answer(messages: list[Message]) -> list[Message]:
        replies = []
        for message, kind in zip(messages, kinds, strict=True):
            weights = honest_weights(message.metadata.dst_node_id + seed, reference)
            replies.append(
                train_reply(message, weights)
                if kind == "honest"
                else HOSTILE[kind](message, weights)
            )
        return replies

    result, metrics = run_round(strategy, 1, reference, grid, answer)
    assert len(strategy.last_verdicts) == len(kinds)
    if "honest" in kinds and kinds.count("honest") > len(kinds) / 2:
        assert result is not None
        assert metrics is not None
    if result is not None:
        assert all(np.isfinite(value).all() for value in result.values())


def test_nobody_answers_and_everybody_fails() -> None:
    strategy = quiet(FedAvg())
    grid = InMemoryGrid(NODES)
    assert run_round(strategy, 1, global_weights(), grid, lambda _messages: []) == (None, None)
    assert strategy.last_missing == NODES
    failed = run_round(
        strategy, 2, global_weights(), grid, lambda messages: [error_reply(m) for m in messages]
    )
    assert failed == (None, None)


def test_evaluation_replies_are_sanitised_too() -> None:
    strategy = quiet(FedAvg(fraction_evaluate=1.0))
    grid = InMemoryGrid(NODES)
    messages = list(
        strategy.configure_evaluate(1, to_record(global_weights()), ConfigRecord(), grid)
    )
    grid.push_messages(messages)
    replies = [
        Message(
            RecordDict({"metrics": MetricRecord({"num-examples": 10, "acc": 0.5})}),
            reply_to=message,
        )
        for message in messages[:-1]
    ]
    odd = MetricRecord({"num-examples": -3, "acc": [1.0, 2.0]})
    replies.append(Message(RecordDict({"metrics": odd}), reply_to=messages[-1]))
    metrics = strategy.aggregate_evaluate(1, replies)
    assert metrics is not None
    assert metrics["acc"] == pytest.approx(0.5)


def test_shield_keeps_the_users_class_and_start() -> None:
    class Mine(FedAvg):
        def start(self, *_args: Any, **_kwargs: Any) -> str:  # type: ignore[override]
            return "my own start"

    strategy = shield(Mine(), make_model(), make_probes(), detector=NOBODY)
    assert isinstance(strategy, Mine)
    assert strategy.start() == "my own start"
    found = aggregate(strategy, NODES, HOSTILE["NaN"])
    wanted = aggregate(FedAvg(), NODES[:-1], None)
    assert found is not None
    assert wanted is not None
    np.testing.assert_allclose(found[W], wanted[W], rtol=1e-6)
