"""Captures: replayed cohorts are the captured ones, and damage is named."""

from pathlib import Path

import numpy as np
import pytest

from fl_shield.audit import AuditLog, read_audit
from fl_shield.cohort import ClientUpdate, Cohort
from fl_shield.cohort_io import capture, replay
from fl_shield.errors import ConfigurationError, FlShieldError, StateError
from fl_shield.judge.verdict import Decision, Verdict


def cohort() -> Cohort:
    rng = np.random.default_rng(0)
    reference = {"w": rng.standard_normal((3, 2)).astype(np.float32), "n": np.asarray(4)}

    def client(number: int) -> ClientUpdate:
        state = {"w": reference["w"] + number, "n": np.asarray(4 + number)}
        return ClientUpdate(2**63 + number, 10.0 * number, lambda: state)

    return Cohort(7, reference, tuple(client(number) for number in (1, 2, 3)))


def test_a_replayed_cohort_is_the_captured_one(tmp_path: Path) -> None:
    original = cohort()
    capture(original, tmp_path / "capture")
    found = replay(tmp_path / "capture")
    assert found.round_number == 7
    np.testing.assert_array_equal(found.reference["w"], original.reference["w"])
    for one, other in zip(found.clients, original.clients, strict=True):
        assert (one.client_id, one.num_examples) == (other.client_id, other.num_examples)
        for name, array in other.load().items():
            np.testing.assert_array_equal(one.load()[name], array)


def test_damaged_captures_are_named(tmp_path: Path) -> None:
    capture(cohort(), tmp_path / "capture")
    weights = sorted((tmp_path / "capture").glob("*.safetensors"))[-1]
    weights.write_bytes(weights.read_bytes()[:40])
    with pytest.raises(FlShieldError, match=weights.name):
        _load_all(tmp_path / "capture")
    with pytest.raises(FlShieldError, match="nowhere"):
        replay(tmp_path / "nowhere")


def _load_all(folder: Path) -> None:
    for client in replay(folder).clients:
        client.load()


def verdict(number: int) -> Verdict:
    return Verdict(number, 2**63 + 1, Decision.KEEP, 0.5, 1.0, 1.0)


def test_audit_lines_come_back_and_a_torn_one_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    AuditLog(path).append([verdict(1), verdict(2)])
    with path.open("a") as file:
        file.write('{"round": 3, "node')
    AuditLog(path).append([verdict(3)])
    records = read_audit(path)
    assert [record["round"] for record in records] == [1, 2, 3]
    assert records[0]["node_id"] == str(2**63 + 1)


def test_damaged_audit_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    AuditLog(path).append([verdict(1)])
    path.write_text(path.read_text() + "no json\n" + path.read_text())
    with pytest.raises(StateError, match="line 2 is damaged"):
        read_audit(path)
    with pytest.raises(ConfigurationError, match="an existing file"):
        read_audit(tmp_path / "nothing.jsonl")
