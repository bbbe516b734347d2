"""Reads what W&B has written offline: LevelDB's log format, a protocol buffer a record.

The package ships no reader of its own. The format is that of LevelDB (doc/log_format.md), after a
header of seven bytes.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK, FRAME, IDENT = 32_768, 7, b":W&B"
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4

PATIENCE = 60.0
"""Seconds that W&B's own process, which writes the files, is given to come to their end."""


@dataclass
class OfflineRun:
    """One W&B run: its names, settings, logged rows and summary."""

    name: str = ""
    group: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)


def offline_runs(folder: Path) -> dict[str, OfflineRun]:
    """Return the runs in a `wandb` folder, each once it is whole, by the ends of their names."""
    found = [_read_whole(file) for file in sorted(folder.glob("offline-run-*/*.wandb"))]
    return {run.name.rpartition("/")[2]: run for run in found}


def _read_whole(file: Path) -> OfflineRun:
    end = time.monotonic() + PATIENCE
    while (run := _read(file)) is None:
        assert time.monotonic() < end, f"W&B has not come to the end of {file}"
        time.sleep(0.2)
    return run


def _read(file: Path) -> OfflineRun | None:
    """Return what a file holds, None while its last record is not there."""
    from wandb.proto import wandb_internal_pb2

    run, is_whole = OfflineRun(), False
    written = file.read_bytes()
    for content in _records(written) if len(written) >= FRAME else ():
        record: Any = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.name, run.group = record.run.display_name, record.run.run_group
            run.config |= _items(record.run.config.update)
        elif kind == "history":
            run.rows.append(_items(record.history.item))
        elif kind == "summary":
            run.summary |= _items(record.summary.update)
        elif kind == "exit":
            is_whole = True
    return run if is_whole else None


def _items(items: Any) -> dict[str, Any]:
    return {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}


def _records(content: bytes) -> Iterator[bytes]:
    assert content.startswith(IDENT)
    position, parts = FRAME, b""
    while position + FRAME <= len(content):
        if BLOCK - position % BLOCK < FRAME:  # too little for a frame: the rest of a block is empty
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        if position + FRAME + length > len(content):
            return
        parts += content[position + FRAME : position + FRAME + length]
        position += FRAME + length
        if kind in (FULL, LAST):
            yield parts
            parts = b""
        assert kind in (FULL, FIRST, MIDDLE, LAST)
