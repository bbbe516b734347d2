"""Checkpoints: what was written comes back, and damage costs one round, not the run."""

import logging
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAdam, FedAvg

from fl_shield.strategies.checkpoint import read_checkpoint, restore, write_checkpoint


def record(value: float) -> ArrayRecord:
    return ArrayRecord({
        "w": Array(np.full((2, 3), value, dtype=np.float32)),
        "count": Array(np.asarray(7, dtype=np.int64)),
    })  # fmt: skip


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 4, record(1.5), FedAvg())
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert found.round_number == 4
    assert list(found.arrays) == ["w", "count"]
    np.testing.assert_array_equal(found.arrays["w"].numpy(), np.full((2, 3), 1.5))
    assert found.arrays["count"].numpy().dtype == np.int64
    assert found.arrays["count"].numpy().shape == ()


def test_the_server_optimiser_goes_on_where_it_was(tmp_path: Path) -> None:
    strategy = FedAdam()
    strategy.m_t = {"w": np.arange(6, dtype=np.float64).reshape(2, 3)}
    strategy.v_t = {"w": np.ones((2, 3))}
    write_checkpoint(tmp_path, 1, record(0.0), strategy)
    found = read_checkpoint(tmp_path)
    assert found is not None
    fresh = FedAdam()
    restore(fresh, found)
    assert fresh.m_t is not None
    assert fresh.v_t is not None
    np.testing.assert_array_equal(fresh.m_t["w"], strategy.m_t["w"])
    np.testing.assert_array_equal(fresh.v_t["w"], strategy.v_t["w"])


def test_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for number in range(1, 6):
        write_checkpoint(tmp_path, number, record(number), FedAvg())
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "000004.json", "000004.safetensors", "000005.json", "000005.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("file", ["000002.json", "000002.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, file: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        write_checkpoint(tmp_path, number, record(number), FedAvg())
    target = tmp_path / file
    content = bytearray(target.read_bytes())
    if damage == "remove":
        target.unlink()
    elif damage == "cut":
        target.write_bytes(content[: len(content) // 2])
    else:
        content[-1] ^= 0xFF
        target.write_bytes(content)
    logging.getLogger("flwr").propagate = True
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert found.round_number == 1
    if (file, damage) != ("000002.json", "remove"):
        assert "000002.json is damaged" in caplog.text


def test_no_folder_means_no_checkpoint(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "nothing") is None
