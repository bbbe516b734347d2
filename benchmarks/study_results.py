"""Studies as committed results: run what is left of one, and read its rows back."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from fl_shield.errors import FlShieldError
from fl_shield.simulations.cli import main as fl_shield_command
from fl_shield.simulations.reporting import read_known, report_runs, run_folders_in

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"

Record = Mapping[str, str]
"""A line of a CSV file."""


def rows_of_study(
    name: str, arguments: Sequence[str], known: Path | None = None
) -> list[dict[str, str]]:
    """Run what is left of a study, and return a row for each run that its folder holds.

    Pieces of a study share its folder: what was run before is in the rows as well. A failed cell
    does not keep the others from being reported, but ends the command with its status.

    Args:
        name: The study.
        arguments: Further arguments of `fl-shield study`.
        known: Rows of runs whose folders may be gone: they count, and are not run again.
    """
    folder = ROOT / "studies" / name
    arguments = [argument for argument in arguments if argument != "--report-only"]
    if known is not None:
        arguments = [f"known={known}", *arguments]
    if "--report-only" not in sys.argv:
        status = fl_shield_command(["study", f"study={name}", f"folder={folder}", *arguments])
        if status not in (0, 1):
            sys.exit(status)
    found = run_folders_in([folder]) if folder.is_dir() else []
    runs = [run for run in found if "-warm-" not in run.name and (run / "arms").is_dir()]
    rows = [] if known is None else read_known(known)
    quiet = Console(width=160, quiet=True)
    try:
        report_runs(runs, folder / "report", quiet, title=name, known=rows)
    except FlShieldError as error:
        sys.exit(f"{error}")
    with (folder / "report" / "results.csv").open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def number(row: Record, name: str) -> float | None:
    """Return a figure of a row, None if it was not measured."""
    return float(row[name]) if row.get(name) else None


def write_csv(file: Path, rows: Sequence[Record]) -> None:
    """Write rows, all of the columns of the first, in their order."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
