"""MetaShield: suspects are held back as the policy says, and wrong arguments are named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from flwr.serverapp.strategy import FedAvg
from torch import nn

from fl_shield.errors import ConfigurationError, ModelError
from fl_shield.judge.posterior import chances
from fl_shield.judge.verdict import Decision
from fl_shield.phrase_memory import PhraseMemory
from fl_shield.strategies import MetaShield
from tests.strategies._rounds import (
    InMemoryGrid,
    NormDetector,
    NormInspector,
    ScriptedDetector,
    Weights,
    global_weights,
    honest_weights,
    make_model,
    make_probes,
    run_round,
    train_reply,
)

NODES = [3, 5, 7, 9, 11]
W = "0.weight"


def shielded(scores: list[float] | None = None, **options: Any) -> MetaShield:
    detector = ScriptedDetector(scores) if scores is not None else NormDetector()
    return MetaShield(
        FedAvg(), make_model(), make_probes(), detector=detector, inspector=NormInspector(),
        **options,
    )  # fmt: skip


def play(strategy: MetaShield, number: int = 1, boost: float = 1.0) -> Weights | None:
    reference = global_weights()

    def answer(messages: list[Message]) -> list[Message]:
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            weights = honest_weights(node, reference)
            if node == 11:
                weights[W] = reference[W] + boost * (weights[W] - reference[W])
            replies.append(train_reply(message, weights))
        return replies

    return run_round(strategy, number, reference, InMemoryGrid(NODES), answer)[0]


def mean_of(nodes: list[int], weights: list[float] | None = None) -> Any:
    return np.average(
        [honest_weights(node, global_weights())[W] for node in nodes], axis=0, weights=weights
    )


def test_a_suspect_is_dropped() -> None:
    strategy = shielded([-1.0, -1.0, 9.0, -1.0, -1.0])
    found = play(strategy)
    assert found is not None
    np.testing.assert_allclose(found[W], mean_of([3, 5, 9, 11]), rtol=1e-5)
    decisions = {v.client_id: v.decision for v in strategy.last_verdicts}
    assert decisions[7] is Decision.DROP
    assert set(decisions.values()) == {Decision.DROP, Decision.KEEP}


@pytest.mark.parametrize("scores", [[9.0, -1.0, -1.0, -1.0, -1.0], [1.0]])
def test_the_operator_pins_nodes_even_in_safe_mode(scores: list[float]) -> None:
    strategy = shielded(scores, trusted_nodes=[3], banned_nodes=[7])
    found = play(strategy)
    assert found is not None
    details = {v.client_id: v.detail for v in strategy.last_verdicts}
    assert details[7] == "banned by the operator."
    if len(scores) == 5:
        np.testing.assert_allclose(found[W], mean_of([3, 5, 9, 11]), rtol=1e-5)
        assert "the operator trusts this node" in details[3]
    else:
        assert "safe mode" in details[3]
        kept = [v.client_id for v in strategy.last_verdicts if v.decision is Decision.KEEP]
        assert kept == [3, 5, 9, 11]


def test_monitoring_changes_nothing_but_says_so() -> None:
    strategy = shielded([-1.0, -1.0, 9.0, -1.0, -1.0], policy="monitor")
    found = play(strategy)
    assert found is not None
    np.testing.assert_allclose(found[W], mean_of(NODES), rtol=1e-5)
    suspect = next(v for v in strategy.last_verdicts if v.client_id == 7)
    assert suspect.decision is Decision.KEEP
    assert "monitor" in suspect.detail


def test_down_weighting_scales_the_update() -> None:
    strategy = shielded([-1.0, -1.0, 2.5, -1.0, -1.0], policy="downweight")
    found = play(strategy)
    weight = next(v for v in strategy.last_verdicts if v.client_id == 7).weight
    assert 0 < weight < 1
    reference = global_weights()[W]
    updates = {n: honest_weights(n, global_weights())[W] - reference for n in NODES}
    updates[7] = weight * updates[7]
    assert found is not None
    np.testing.assert_allclose(
        found[W], reference + np.mean(list(updates.values()), axis=0), rtol=1e-4, atol=1e-6
    )


def test_by_default_updates_pass_by_the_odds_that_the_detector_knows() -> None:
    detector = ScriptedDetector([-9.0, -9.0, -1.6, -9.0, -9.0])
    detector.even_score = -2.0  # type: ignore[attr-defined]
    strategy = MetaShield(
        FedAvg(), make_model(), make_probes(), detector=detector, inspector=NormInspector()
    )
    found = play(strategy)
    weights = [verdict.weight for verdict in strategy.last_verdicts]
    benign = 1.0 - chances([-7.0, -7.0, 0.4, -7.0, -7.0])[2]
    assert 0.8 < benign < 0.9
    assert weights == pytest.approx([1.0, 1.0, benign, 1.0, 1.0])
    reference = global_weights()[W]
    updates = [honest_weights(n, global_weights())[W] - reference for n in NODES]
    expected = reference + np.mean([w * u for w, u in zip(weights, updates, strict=True)], axis=0)
    assert found is not None
    np.testing.assert_allclose(found[W], expected, rtol=1e-4, atol=1e-6)


def test_never_more_than_the_stated_share_is_dropped() -> None:
    strategy = shielded([9.0, 8.0, 7.0, 6.0, 5.0], max_drop_share=0.45)
    play(strategy)
    dropped = [v.client_id for v in strategy.last_verdicts if v.decision is Decision.DROP]
    assert dropped == [3, 5]  # the two most suspicious of five


def test_the_last_round_is_remembered() -> None:
    strategy = shielded([-1.0, -1.0, 1.2, -1.0, -1.0])
    decisions = []
    for number in range(1, 6):
        play(strategy, number)
        decisions.append(next(v.decision for v in strategy.last_verdicts if v.client_id == 7))
    assert decisions[0] is Decision.KEEP
    assert decisions[-1] is Decision.DROP  # 1.2 a round adds up


def test_memory_survives_a_restart() -> None:
    scores = [-1.0, -1.0, 1.2, -1.0, -1.0]
    one, other = shielded(scores), shielded(scores)
    for number in (1, 2):
        play(one, number)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    play(one, 3)
    play(other, 3)
    assert other.last_verdicts == one.last_verdicts


def test_evidence_that_another_detector_gathered_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = shielded([-1.0] * 5)
    play(one)
    state = one.state_dict()
    same, other = shielded([-1.0] * 5), shielded()
    caplog.clear()
    same.load_state_dict(state)
    assert not caplog.messages
    other.load_state_dict(state)
    assert caplog.messages == [
        "The evidence was gathered by the detector scripted and goes on with norm."
    ]


class RememberingInspector(NormInspector):
    """An inspector with a memory."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = PhraseMemory()


def test_phrases_of_a_judged_round_are_remembered_and_survive_a_restart() -> None:
    inspectors = RememberingInspector(), RememberingInspector()
    one, other = (
        MetaShield(
            FedAvg(), make_model(), make_probes(), detector=NormDetector(), inspector=inspector
        )
        for inspector in inspectors
    )
    inspectors[0].memory.weigh([(1, 2), (3, 4)], torch.eye(2).reshape(2, 2, 1))
    assert one.state_dict()["phrases"] == []
    play(one)
    assert [entry["tokens"] for entry in one.state_dict()["phrases"]] == [[1, 2], [3, 4]]
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert inspectors[1].memory.phrases == ((1, 2), (3, 4))


def test_survivors_are_clipped_to_the_median_norm() -> None:
    strategy = shielded([-1.0] * 5, clip_survivors=True)
    boosted, plain = play(strategy, boost=100.0), play(shielded([-1.0] * 5))
    assert boosted is not None
    assert plain is not None
    reference = global_weights()[W]
    assert np.linalg.norm(boosted[W] - reference) < 2 * np.linalg.norm(plain[W] - reference)


def test_a_detector_that_fails_costs_no_round() -> None:
    strategy = shielded([1.0, 2.0])  # too few scores
    assert play(strategy) is not None
    assert all("safe mode" in verdict.detail for verdict in strategy.last_verdicts)


def test_two_clients_are_too_few_to_compare() -> None:
    strategy = shielded([9.0, 9.0])
    reference = global_weights()
    result, _ = run_round(
        strategy, 1, reference, InMemoryGrid([1, 2]),
        lambda messages: [
            train_reply(m, honest_weights(m.metadata.dst_node_id, reference)) for m in messages
        ],
    )  # fmt: skip
    assert result is not None
    assert all("too few" in verdict.detail for verdict in strategy.last_verdicts)


def test_every_verdict_is_in_the_audit_log(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "audit.jsonl"
    strategy = shielded([-1.0, -1.0, 9.0, -1.0, -1.0], audit_log=log)
    play(strategy, 1)
    play(strategy, 2)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(r["round"], r["node_id"]) for r in records] == [
        (number, str(node)) for number in (1, 2) for node in NODES
    ]
    assert {r["decision"] for r in records if r["node_id"] == "7"} == {"drop"}
    assert records[0]["reasons"]


def test_works_with_its_defaults() -> None:
    strategy = MetaShield(FedAvg(), make_model(), make_probes())
    assert play(strategy) is not None
    assert all(verdict.score is not None for verdict in strategy.last_verdicts)


class _Legacy:
    """Not a Message-API strategy."""


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((FedAvg(), make_model(), None), "16 or more clean samples"),
        ((FedAvg(), "resnet", make_probes()), r"torch\.nn\.Module, got 'str'"),
        ((_Legacy(), make_model(), make_probes()), r"flwr\.serverapp\.strategy\.Strategy"),
        ((FedAvg(), make_model(), torch.rand(8, 9)), "cannot take the probe set"),
        ((FedAvg(), make_model(), (make_probes(), torch.full((8,), 5))), "from 0 below 2"),
        ((FedAvg(), nn.Linear(4, 1), make_probes()), "at least two classes"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[Any, ...], match: str) -> None:
    with pytest.raises((ConfigurationError, ModelError), match=match):
        MetaShield(*arguments)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"policy": "drp"}, "Did you mean 'drop'"),
        ({"max_drop_share": 1.0}, "at least 0 and below 1"),
        ({"min_clients": 1}, "at least 3, got 1"),
        ({"evidence_decay": 2.0}, "between 0 and 1, got 2"),
        ({"final_layer": "3"}, "Unknown layer '3'"),
        ({"detector": object()}, r"score\(table\)"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], match: str) -> None:
    with pytest.raises((ConfigurationError, ModelError), match=match):
        MetaShield(FedAvg(), make_model(), make_probes(), **options)


def test_a_strategy_is_shielded_once() -> None:
    with pytest.raises(ConfigurationError, match="shielded already"):
        MetaShield(shielded(), make_model(), make_probes())


def test_another_architecture_is_named_in_the_first_round() -> None:
    strategy = MetaShield(FedAvg(), nn.Linear(4, 2), make_probes())
    with pytest.raises(ModelError, match="not those of the shield's model"):
        play(strategy)
