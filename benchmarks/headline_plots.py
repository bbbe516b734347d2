"""The plots of the headline study: of rows, and of the rounds of one whole block of runs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.marked_table import marks, read_table
from benchmarks.study_results import RESULTS, Record
from fl_shield.simulations.reporting import report_runs

OF_ROWS = {
    "heat_map": "ASR by attack and defence",
    "cost_against_quality": "Cost against quality",
}
"""Plots that need no run folders: how their names begin, and what they show."""

OF_ROUNDS = {
    "asr_curves": "Attack success rate by round",
    "accuracy_curves": "Main accuracy by round",
    "roc": "Scores of attackers against those of honest clients",
    "score_distributions": "Scores of attackers and of honest clients",
}
"""Plots that do."""

PAGE, ROUNDS = RESULTS / "headline.md", "headline-rounds"


def write_plots(rows: Sequence[Record], study: Path) -> str:
    """Put the plots beside the results, and return the part of the page that shows them.

    Rounds and scores are those of a *block*: data set, share of attackers and seed of which every
    run has its folder, the largest such. Where none is as large as an earlier one, the plots of
    that stay, and so does what the page says of them.

    Args:
        rows: Of all finished runs.
        study: The study's folder, with a report in it.
    """
    block = whole_block(rows, study)
    rounds = read_table(PAGE, ROUNDS) if PAGE.is_file() else ""
    if block and len(block) >= runs_told(rounds):
        report_runs([study / row["run"] for row in block], study / "block", Console(quiet=True))
        rounds = "\n".join([_told(block), *_shown(study / "block", OF_ROUNDS)])
    begin, end = marks(ROUNDS)
    lines = [*_shown(study / "report", OF_ROWS), begin, rounds.strip(), end, ""]
    return "\n".join(["## Plots\n", *lines])


def whole_block(rows: Sequence[Record], study: Path) -> list[Record]:
    """Return the attacked runs of the largest block all of whose folders are there, or none."""
    blocks: dict[tuple[str, str, str], list[Record]] = {}
    for row in rows:
        if row["trigger"]:
            blocks.setdefault((row["data"], row["attackers"], row["seed"]), []).append(row)
    whole = [b for b in blocks.values() if all((study / r["run"]).is_dir() for r in b)]
    return max(whole, key=len, default=[])


def runs_told(text: str) -> int:
    """Return how many runs a page says that its rounds and scores are of, 0 if it says nothing.

    >>> runs_told("Rounds and scores are those of 182 runs: mnist, 20 % attackers, seed 1.")
    182
    """
    found = re.search(r"those of (\d+) runs", text)
    return int(found.group(1)) if found else 0


def _told(block: Sequence[Record]) -> str:
    first = block[0]
    return (
        f"Rounds and scores are those of {len(block)} runs: {first['data']}, "
        f"{100 * float(first['attackers']):.0f} % attackers, seed {first['seed']}.\n"
    )


def _shown(report: Path, plots: Mapping[str, str]) -> list[str]:
    """Copy plots of a report beside the results, and return the lines that show them."""
    lines = []
    for name, told in plots.items():
        for plot in sorted((report / "plots").glob(f"{name}*.png")):
            shutil.copyfile(plot, RESULTS / f"headline.{plot.name}")
            lines.append(f"![{told}](headline.{plot.name})\n")
    return lines
