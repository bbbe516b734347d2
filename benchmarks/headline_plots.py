"""The plots of the headline study: of rows, and of the rounds of one whole block of runs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.study_results import RESULTS, Record
from fl_shield.simulations.reporting import report_runs

OF_ROWS = ("heat_map", "cost_against_quality")
"""Plots that need no run folders."""

OF_ROUNDS = {
    "asr_curves": "Attack success rate by round",
    "accuracy_curves": "Main accuracy by round",
    "roc": "Scores of attackers against those of honest clients",
    "score_distributions": "Scores of attackers and of honest clients",
}
"""Plots that do, and what they show."""

PREFIX = "headline."


def write_plots(rows: Sequence[Record], study: Path) -> str:
    """Put the plots beside the results, and return the part of the page that shows them.

    Rounds and scores are those of a *block*: data set, share of attackers and seed of which every
    run has its folder, the largest such. Where there is none, the plots of an earlier block stay,
    and so does what the page says of them.

    Args:
        rows: Of all finished runs.
        study: The study's folder, with a report in it.
    """
    for plot in sorted((study / "report" / "plots").glob("*.png")):
        if plot.name.startswith(OF_ROWS):
            shutil.copyfile(plot, RESULTS / f"{PREFIX}{plot.name}")
    block = whole_block(rows, study)
    about = RESULTS / f"{PREFIX}block.txt"
    if block:
        report_runs([study / row["run"] for row in block], study / "block", Console(quiet=True))
        for name in OF_ROUNDS:
            plot = study / "block" / "plots" / f"{name}.png"
            if plot.is_file():
                shutil.copyfile(plot, RESULTS / f"{PREFIX}{name}.png")
        about.write_text(_told(block), encoding="utf-8")
    lines = ["## Plots\n"]
    heat = sorted(RESULTS.glob(f"{PREFIX}heat_map*.png"))
    lines += [_image(file, "ASR by attack and defence") for file in heat]
    lines.append(_image(RESULTS / f"{PREFIX}cost_against_quality.png", "Cost against quality"))
    if about.is_file():
        lines.append(about.read_text(encoding="utf-8"))
        files = {RESULTS / f"{PREFIX}{name}.png": told for name, told in OF_ROUNDS.items()}
        lines += [_image(file, told) for file, told in files.items() if file.is_file()]
    return "\n".join(lines)


def whole_block(rows: Sequence[Record], study: Path) -> list[Record]:
    """Return the attacked runs of the largest block all of whose folders are there, or none."""
    blocks: dict[tuple[str, str, str], list[Record]] = {}
    for row in rows:
        if row["trigger"]:
            blocks.setdefault((row["data"], row["attackers"], row["seed"]), []).append(row)
    whole = [b for b in blocks.values() if all((study / r["run"]).is_dir() for r in b)]
    return max(whole, key=len, default=[])


def _told(block: Sequence[Record]) -> str:
    first = block[0]
    return (
        f"Rounds and scores are those of {len(block)} runs: {first['data']}, "
        f"{100 * float(first['attackers']):.0f} % attackers, seed {first['seed']}.\n"
    )


def _image(file: Path, told: str) -> str:
    return f"![{told}]({file.name})\n"
