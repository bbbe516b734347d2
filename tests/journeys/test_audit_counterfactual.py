"""`fl-shield audit LOG --captures DIR` as an operator runs it, on what a real shield left."""

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import load_file, save_file

from fl_shield.strategies import MetaShield
from tests.journeys._commands import run
from tests.strategies._killed_server import NODES, OrderedGrid, client
from tests.strategies._rounds import (
    NormDetector,
    NormInspector,
    from_record,
    global_weights,
    make_model,
    make_probes,
    to_record,
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("_run_id", "_task_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    strategy = MetaShield(
        FedAvg(fraction_evaluate=0.0), make_model(), make_probes(),
        inspector=NormInspector(), detector=NormDetector(),
        audit_log=tmp_path / "audit.jsonl", capture=tmp_path / "captures",
    )  # fmt: skip
    result = strategy.start(OrderedGrid(NODES, client), to_record(global_weights()), num_rounds=3)
    save_file(from_record(result.arrays), tmp_path / "final.safetensors")
    return tmp_path


@pytest.mark.slow
def test_what_the_model_would_have_been(place: Path) -> None:
    command = ("audit", "audit.jsonl", "--captures", "captures", "--write-models", "models")
    status, output, errors = run(*command, "--json", "found.json", cwd=place)
    assert status == 3, errors
    assert "What the model would have been" in output
    rounds = json.loads((place / "found.json").read_text())["rounds"]
    assert [entry["round"] for entry in rounds] == [1, 2, 3]
    assert rounds[0]["held_back"] == []
    assert rounds[0]["distance"] == pytest.approx(0.0, abs=1e-9)
    assert rounds[1]["held_back"] == ["11"]  # it attacks in rounds 2 and 3
    assert rounds[1]["distance"] > 0.1 * rounds[1]["step"]
    found = load_file(place / "models" / "round-000003-passed.safetensors")
    final = load_file(place / "final.safetensors")
    for name in ("0.weight", "2.bias"):  # what passed is what the server really aggregated
        np.testing.assert_allclose(found[name], final[name], rtol=1e-5, atol=1e-6)
    poisoned = load_file(place / "models" / "round-000003-everybody.safetensors")
    assert np.abs(poisoned["0.weight"] - final["0.weight"]).max() > 0.1


@pytest.mark.slow
def test_captures_of_other_rounds_are_refused(place: Path) -> None:
    log = place / "audit.jsonl"
    log.write_text(
        "".join(line for line in log.open() if '"round": 1,' not in line)
        .replace('"round": 2', '"round": 12')
        .replace('"round": 3', '"round": 13')
    )
    status, _, errors = run("audit", "audit.jsonl", "--captures", "captures", cwd=place)
    assert status == 2
    assert "captures of rounds that are in the log" in errors
