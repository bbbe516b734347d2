"""The disk cache returns what was built, notices changes, and survives damage."""

import os
from pathlib import Path

import pytest
import torch

from fl_shield.data.cache import cache_folder, cached, cached_splits, fingerprint
from fl_shield.data.task import Split


class _Builder:
    def __init__(self, value: int = 1) -> None:
        self.value, self.calls = value, 0

    def __call__(self) -> tuple[Split, Split, tuple[str, ...]]:
        self.calls += 1
        inputs = torch.full((2, 1, 2, 2), self.value, dtype=torch.uint8)
        split = Split(inputs, torch.tensor([0, 1]))
        return split, Split(inputs + 1, torch.tensor([1, 0])), ("café", "b")


def test_second_read_comes_from_disk_unchanged(cache: Path) -> None:
    build = _Builder()
    first, second = (cached_splits({"a": 1}, build) for _ in range(2))
    assert build.calls == 1
    for before, after in zip(first[:2], second[:2], strict=True):
        assert torch.equal(before.inputs, after.inputs)
        assert torch.equal(before.labels, after.labels)
        assert before.inputs.dtype == after.inputs.dtype
    assert second[2] == ("café", "b")
    assert [file.suffix for file in cache.iterdir()] == [".safetensors"]  # nothing half-written


def test_another_key_is_another_entry() -> None:
    build = _Builder()
    cached_splits({"a": 1}, build)
    cached_splits({"a": 2}, build)
    assert build.calls == 2


@pytest.mark.parametrize("keep", [0, 4, 40, -3])
def test_damaged_entry_is_rebuilt(cache: Path, keep: int) -> None:
    build = _Builder()
    cached_splits({}, build)
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:keep])
    train, _, _ = cached_splits({}, build)
    assert (build.calls, int(train.inputs[0, 0, 0, 0])) == (2, 1)
    cached_splits({}, build)
    assert build.calls == 2  # and is whole again


def test_unwritable_cache_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("FL_SHIELD_CACHE", str(blocker / "under"))
    tensors, text = cached({}, lambda: ({"x": torch.ones(1)}, {"note": "n"}))
    assert (float(tensors["x"]), text["note"]) == (1.0, "n")


def test_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FL_SHIELD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/fl_shield")


def test_fingerprint_sees_name_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("x")
    os.utime(file, ns=(1, 1))
    seen = {fingerprint([file])}
    os.utime(file, ns=(2, 2))
    seen.add(fingerprint([file]))
    file.write_text("xy")
    os.utime(file, ns=(2, 2))
    seen.add(fingerprint([file]))
    other = file.rename(tmp_path / "b")
    seen.add(fingerprint([other]))
    assert len(seen) == 4
