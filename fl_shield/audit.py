"""The audit log: one JSON line a verdict, appended and flushed once a round.

A line is complete or absent: a round is written in one go, and a tail torn by a crash is cut off
when the log is opened again, so that a resumed run never appends to half a line.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fl_shield.errors import ConfigurationError, StateError, expected
from fl_shield.judge.verdict import Decision, Verdict

_FIELDS = ("round", "node_id", "decision", "score", "evidence", "weight", "reasons", "detail")

_BLOCK = 1 << 16
"""Bytes that are read at a time in search of the last line; logs of months are large."""

_log = logging.getLogger(__name__)


class AuditLog:
    """Appends verdicts to a JSON-lines file.

    Args:
        path: File to append to; its folder is created.

    Raises:
        ConfigurationError: if the file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab"):
                pass
            self._cut_torn_tail()
        except OSError as error:
            raise ConfigurationError(
                expected("audit_log", "a file that can be written", str(path), f"{error}.")
            ) from error

    def append(self, verdicts: Iterable[Verdict]) -> None:
        """Write the verdicts of a round and flush them.

        Raises:
            OSError: if the disk refuses.
        """
        lines = "".join(
            json.dumps(verdict.as_record(), allow_nan=False) + "\n" for verdict in verdicts
        )
        with self.path.open("a", encoding="utf-8") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def length(self) -> int:
        """Return the length of the log in bytes.

        Raises:
            OSError: if the file is gone.
        """
        return self.path.stat().st_size

    def set_aside_after(self, length: int) -> None:
        """Move what was written after the first `length` bytes to `<name>.repeated`, beside it.

        Those are verdicts of a round that was open when the server died, and is run again.
        """
        with self.path.open("r+b") as file:
            file.seek(length)
            tail = file.read()
            if not tail:
                return
            with self.path.with_name(f"{self.path.name}.repeated").open("ab") as aside:
                aside.write(tail)
            file.truncate(length)

    def _cut_torn_tail(self) -> None:
        with self.path.open("r+b") as file:
            size = end = file.seek(0, os.SEEK_END)
            while end > 0:
                start = max(end - _BLOCK, 0)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    end = start + newline + 1
                    break
                end = start
            if end < size:
                _log.warning("%s ended in an unfinished line, which was cut off.", self.path)
                file.truncate(end)


def read_audit(path: str | Path) -> list[dict[str, Any]]:
    """Return the records of an audit log, in the order they were written.

    Raises:
        ConfigurationError: if there is no such file.
        StateError: naming the first line that is no verdict.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigurationError(expected("audit_log", "an existing file", str(path)))
    records: list[dict[str, Any]] = []
    lines = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line and number == len(lines):
            break  # the newline that ends the last line
        records.append(_parse(line, f"{file}, line {number}"))
    return records


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise StateError(f"{where} is damaged: it is no JSON ({error}).") from error
    if not isinstance(record, dict) or any(field not in record for field in _FIELDS):
        raise StateError(f"{where} is damaged: it is no verdict with {', '.join(_FIELDS)}.")
    if record["decision"] not in set(Decision):
        raise StateError(f"{where} is damaged: {record['decision']!r} is no decision.")
    return record
