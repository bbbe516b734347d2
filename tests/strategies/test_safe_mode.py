"""One client that makes the inspector fail is dropped by itself; what was decided stays decided."""

from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg

from fl_shield.cohort import Cohort
from fl_shield.descriptors.table import DescriptorTable
from fl_shield.errors import ConfigurationError
from fl_shield.judge.evidence import ClientRecord, Standing
from fl_shield.judge.verdict import Decision
from fl_shield.strategies import MetaShield
from tests.strategies._rounds import (
    InMemoryGrid,
    NormDetector,
    NormInspector,
    ScriptedDetector,
    global_weights,
    honest_weights,
    make_model,
    make_probes,
    run_round,
    to_record,
    train_reply,
)

NODES = [3, 5, 7, 9, 11]
W = "0.weight"


class FragileInspector(NormInspector):
    """Cannot describe a cohort in which anybody's first weight is 77."""

    def describe(self, cohort: Cohort) -> DescriptorTable:
        if any(float(c.load()[W].ravel()[0]) == 77.0 for c in cohort.clients):
            raise IndexError("index out of range")
        return super().describe(cohort)


def play(strategy: MetaShield, breaking: tuple[int, ...] = ()) -> Any:
    reference = global_weights()

    def answer(messages: list[Message]) -> list[Message]:
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            weights = honest_weights(node, reference)
            if node in breaking:
                weights[W] = np.full_like(weights[W], 77.0)
            replies.append(train_reply(message, weights))
        return replies

    return run_round(strategy, 1, reference, InMemoryGrid(NODES), answer)[0]


def shielded(detector: Any = None, **options: Any) -> MetaShield:
    return MetaShield(
        FedAvg(), make_model(), make_probes(), inspector=FragileInspector(),
        detector=detector or NormDetector(), **options,
    )  # fmt: skip


def test_a_client_that_breaks_the_inspector_is_dropped_by_itself() -> None:
    strategy = shielded()
    found = play(strategy, breaking=(7,))
    verdicts = {v.client_id: v for v in strategy.last_verdicts}
    assert verdicts[7].decision is Decision.DROP
    assert "cannot run with its weights (IndexError)" in verdicts[7].detail
    assert all(verdicts[node].score is not None for node in NODES if node != 7)
    honest = [honest_weights(node, global_weights())[W] for node in NODES if node != 7]
    np.testing.assert_allclose(found[W], np.mean(honest, axis=0), rtol=1e-5)


def test_when_everybody_breaks_it_nobody_is_blamed() -> None:
    strategy = shielded()
    assert play(strategy, breaking=tuple(NODES)) is not None
    assert {v.decision for v in strategy.last_verdicts} == {Decision.KEEP}
    assert all(v.detail.startswith("safe mode") for v in strategy.last_verdicts)


@pytest.mark.parametrize(("policy", "decision"), [("drop", "drop"), ("monitor", "keep")])
def test_the_excluded_stay_so_in_safe_mode(policy: str, decision: str) -> None:
    strategy = shielded(ScriptedDetector([1.0]), policy=policy)  # too few scores: it fails
    book = strategy._shield_core.judge.evidence
    book.store(9, ClientRecord(evidence=8.0, standing=Standing.EXCLUDED, last_seen=0))
    assert play(strategy) is not None
    found = {v.client_id: v.decision for v in strategy.last_verdicts}
    assert found[9].value == decision
    assert found[3] is Decision.KEEP


def test_secure_aggregation_is_refused() -> None:
    class Masked(FedAvg):
        """Asks for masked updates, as Flower's SecAgg+ does."""

        def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
            messages = list(super().configure_train(server_round, arrays, config, grid))
            content = RecordDict({**messages[0].content, "secaggplus_configs": ConfigRecord()})
            for message in messages:
                message.content = content
            return messages

    strategy = MetaShield(
        Masked(), make_model(), make_probes(), inspector=NormInspector(), detector=NormDetector()
    )
    grid = InMemoryGrid(NODES)
    with pytest.raises(ConfigurationError, match="sees only the sum"):
        strategy.configure_train(1, to_record(global_weights()), ConfigRecord(), grid)
    with pytest.raises(ConfigurationError, match="older flwr.server API"):
        strategy.initialize_parameters()


def test_a_failing_strategy_keeps_the_old_model() -> None:
    class Failing(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            raise ZeroDivisionError

    strategy = MetaShield(
        Failing(), make_model(), make_probes(), inspector=NormInspector(), detector=NormDetector()
    )
    assert play(strategy) is None


@pytest.mark.parametrize("value", [0.0, 1.5, -1, float("nan"), "half"])
def test_impossible_shares_are_named(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_client_share"):
        shielded(max_client_share=value)
