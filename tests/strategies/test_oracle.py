"""The oracle leaves out the attackers and nobody else, and works where the truth is known."""

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg

from fl_shield.errors import ConfigurationError
from fl_shield.simulations.oracle import Oracle
from tests.strategies._rounds import (
    InMemoryGrid,
    Weights,
    global_weights,
    honest_weights,
    make_model,
    make_probes,
    run_round,
    train_reply,
)  # fmt: skip

NODES = [3, 5, 7]
W = "0.weight"
UPDATES = {node: honest_weights(node, global_weights()) for node in NODES}


def play(strategy: Oracle) -> Weights | None:
    return run_round(
        strategy, 1, global_weights(), InMemoryGrid(NODES),
        lambda messages: [train_reply(m, UPDATES[m.metadata.dst_node_id]) for m in messages],
    )[0]  # fmt: skip


def test_exactly_the_attackers_are_left_out(tmp_path: Path) -> None:
    strategy = Oracle(FedAvg(), make_model(), make_probes(), audit_log=tmp_path / "audit.jsonl")
    truth = {str(n): {"partition_id": n, "malicious": n == 5} for n in NODES}
    (tmp_path / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
    found = play(strategy)
    assert found is not None
    np.testing.assert_allclose(found[W], (UPDATES[3][W] + UPDATES[7][W]) / 2, rtol=1e-5, atol=1e-6)
    assert {v.client_id: v.decision.value for v in strategy.last_verdicts} == {
        3: "keep", 5: "drop", 7: "keep",
    }  # fmt: skip


def test_without_the_truth_there_is_no_oracle(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="fl-shield simulate and fl-shield study only"):
        play(Oracle(FedAvg(), make_model(), make_probes()))
    with pytest.raises(ConfigurationError, match="no .*truth.json"):
        play(Oracle(FedAvg(), make_model(), make_probes(), audit_log=tmp_path / "audit.jsonl"))
