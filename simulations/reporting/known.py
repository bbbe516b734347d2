"""Rows of runs whose folders are elsewhere: read from a `results.csv`, and put beside new ones."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path

from fl_shield.errors import DataError
from fl_shield.simulations.reporting.rows import Row
from fl_shield.simulations.study_cells import Cell

KINDS = {field.name: str(field.type) for field in fields(Row)}
"""Columns of a row, and what they hold."""

REQUIRED = [field.name for field in fields(Row) if field.default is MISSING]
"""Columns that every `results.csv` has had."""


def read_known(file: str | Path) -> list[Row]:
    """Return the rows of a `results.csv`; none if there is no such file.

    Raises:
        DataError: naming the first line that is no row, or the columns that are missing.
    """
    path = Path(file)
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        missing = [name for name in REQUIRED if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(
                f"Expected {path} to be a results.csv of fl-shield report, but it has no column "
                f"{', '.join(missing)}."
            )
        return [_row(line, path, number) for number, line in enumerate(reader, start=2)]


def beside_known(rows: Sequence[Row], known: Sequence[Row]) -> list[Row]:
    """Return new rows, and the known ones of runs that are not finished among them.

    What a row lacks of the run without attack and defence it takes from a known one: the clean run
    itself may lie elsewhere.
    """
    finished = {row.run for row in known if row.finished}
    rows = [row for row in rows if row.finished or row.run not in finished]
    played = {row.run for row in rows}
    kept = [row for row in known if row.run not in played]
    rates = {attacked_cell(row): row.clean_asr for row in kept if row.clean_asr is not None}
    accuracies = {(row.data, row.seed): row.clean_ma for row in kept if row.clean_ma is not None}
    return [
        *(
            replace(
                row,
                clean_asr=_first(row.clean_asr, rates.get(attacked_cell(row))),
                clean_ma=_first(row.clean_ma, accuracies.get((row.data, row.seed))),
            )
            for row in rows
        ),
        *kept,
    ]


def attacked_cell(of: Row | Cell) -> tuple[object, ...]:
    """Return what decides how a clean model answers the attack of a row, or of a cell to play."""
    return (of.data, of.attack, of.trigger, of.attackers, of.seed)


def _first(own: float | None, other: float | None) -> float | None:
    return other if own is None else own


def _row(line: Mapping[str, str | None], path: Path, number: int) -> Row:
    try:
        values = {
            name: _value(line[name] or "", kind) for name, kind in KINDS.items() if name in line
        }
        return Row(**values)  # type: ignore[arg-type]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}, line {number}: damaged or cut short ({error}).") from error


def _value(text: str, kind: str) -> object:
    if not text and "None" in kind:
        return None
    if kind == "bool":
        return {"yes": True, "no": False}[text]
    if kind.startswith("float"):
        return float(text)
    return int(text) if kind.startswith("int") else text
