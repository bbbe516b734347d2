"""A server that dies goes on where it was: same model, same evidence, same audit log."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import FedAvg, Result
from safetensors.numpy import load_file
from torch import nn

from fl_shield.audit import read_audit
from fl_shield.errors import ConfigurationError, StateError
from fl_shield.strategies import MetaShield, shield
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

POINTS = 40
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lives") / "runs"
    subprocess.run(
        [sys.executable, "-m", "tests.strategies._killed_server", str(folder), str(POINTS)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder


def test_servers_really_died(lives: Path) -> None:
    report = json.loads((lives / "died.json").read_text())
    died = report["died"]
    assert sum(count == 1 for name, count in died.items() if name != "often") == POINTS
    assert died["often"] >= 3


def test_a_killed_server_ends_as_an_uninterrupted_one(lives: Path) -> None:
    wanted = load_file(lives / "whole" / "final.safetensors")
    shield_state = json.loads((lives / "whole" / "shield.json").read_text())
    log = (lives / "whole" / "audit.jsonl").read_text()
    assert any(record["decision"] == "drop" for record in read_audit(lives / "whole/audit.jsonl"))
    folders = [folder for folder in lives.iterdir() if folder.is_dir()]
    assert len(folders) == POINTS + 3
    for folder in folders:
        found = load_file(folder / "final.safetensors")
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array, err_msg=f"{folder.name} {name}")
        assert json.loads((folder / "shield.json").read_text()) == shield_state, folder.name
        assert (folder / "audit.jsonl").read_text() == log, folder.name


def make(folder: Path | None, **options: Any) -> MetaShield:
    return MetaShield(
        FedAvg(fraction_evaluate=0.0), make_model(), make_probes(),
        inspector=NormInspector(), detector=NormDetector(), state=folder, **options,
    )  # fmt: skip


def run(strategy: Any, rounds: int, **options: Any) -> Any:
    grid = OrderedGrid(NODES, client)
    return strategy.start(grid, to_record(global_weights()), num_rounds=rounds, **options)


def test_num_rounds_counts_all_sessions(tmp_path: Path) -> None:
    seen: list[int] = []

    def evaluate(number: int, _arrays: ArrayRecord) -> MetricRecord:
        seen.append(number)
        return MetricRecord({"accuracy": 0.5})

    run(make(tmp_path), 2)
    result = run(make(tmp_path), 5, evaluate_fn=evaluate)
    assert sorted(result.train_metrics_clientapp) == [3, 4, 5]
    assert sorted(result.evaluate_metrics_serverapp) == [2, 3, 4, 5]
    assert seen == [2, 3, 4, 5]
    whole = run(make(None), 5)
    for name, array in from_record(whole.arrays).items():
        np.testing.assert_array_equal(result.arrays[name].numpy(), array)


def test_a_finished_run_trains_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("flwr").propagate = True
    first = run(make(tmp_path), 2)
    second = run(make(tmp_path), 2)
    assert "All 2 rounds were finished" in caplog.text
    assert isinstance(second, Result)
    for name, array in from_record(first.arrays).items():
        np.testing.assert_array_equal(second.arrays[name].numpy(), array)


def test_a_strategy_shielded_in_place_goes_on_too(tmp_path: Path) -> None:
    def in_place() -> FedAvg:
        return shield(
            FedAvg(fraction_evaluate=0.0), make_model(), make_probes(),
            inspector=NormInspector(), detector=NormDetector(), state=tmp_path,
        )  # fmt: skip

    run(in_place(), 1)
    result = run(in_place(), 3)
    assert sorted(result.train_metrics_clientapp) == [2, 3]


def test_the_newest_state_is_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("flwr").propagate = True
    run(make(tmp_path), 3)
    newest = tmp_path / "000003.json"
    newest.write_text(newest.read_text().replace("evidence", "evidance", 1))
    result = run(make(tmp_path), 3)
    assert "000003.json is damaged" in caplog.text
    assert sorted(result.train_metrics_clientapp) == [3]


def test_no_state_can_be_read(tmp_path: Path) -> None:
    run(make(tmp_path), 3)
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(b"")
    with pytest.raises(StateError, match="No state in .* can be read"):
        run(make(tmp_path), 3)


def test_the_state_of_another_model(tmp_path: Path) -> None:
    run(make(tmp_path), 1)
    other = ArrayRecord(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2)).state_dict())
    with pytest.raises(StateError, match="that of another model"):
        make(tmp_path).start(OrderedGrid(NODES, client), other, num_rounds=2)


def test_two_servers_on_one_folder(tmp_path: Path) -> None:
    def evaluate(_number: int, _arrays: ArrayRecord) -> None:
        with pytest.raises(StateError, match="in use by another server"):
            run(make(tmp_path), 2)

    run(make(tmp_path), 1, evaluate_fn=evaluate)


def test_a_start_that_cannot_be_resumed(tmp_path: Path) -> None:
    class Odd(FedAvg):
        def start(self, grid: Any, initial_arrays: Any) -> Any:  # type: ignore[override]
            raise AssertionError("a run that cannot go on must not begin")

    def in_place() -> Odd:
        return shield(
            Odd(fraction_evaluate=0.0), make_model(), make_probes(),
            inspector=NormInspector(), detector=NormDetector(), state=tmp_path,
        )  # fmt: skip

    with pytest.raises(ConfigurationError, match="no num_rounds"):
        in_place().start(OrderedGrid(NODES, client), to_record(global_weights()))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="state"):
        make(tmp_path / "file" / "state")
