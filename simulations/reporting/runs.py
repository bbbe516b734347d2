"""A report of many runs: which folders are meant, and everything that is written about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fl_shield.errors import ConfigurationError, expected
from fl_shield.simulations.final_section import Section, Subject, section_of
from fl_shield.simulations.plots.plot import Plot
from fl_shield.simulations.reporting.curves import accuracy_curves, asr_curves
from fl_shield.simulations.reporting.heat import heat_maps
from fl_shield.simulations.reporting.known import beside_known
from fl_shield.simulations.reporting.page import headline, page_of
from fl_shield.simulations.reporting.price import cost_against_quality
from fl_shield.simulations.reporting.rows import Row, RunRow, read_rows
from fl_shield.simulations.reporting.scores import roc, score_distributions
from fl_shield.simulations.reporting.tables import csv_text, latex, markdown, terminal
from fl_shield.simulations.study_state import DAMAGED

MAX_NAMED = 20
"""Sentences about damage on the terminal; the page has all."""


def run_folders_in(paths: Sequence[Path]) -> list[Path]:
    """Return the run folders that are meant: each path, or the run folders right inside it.

    A path that is neither is returned as it is, so that reading it says what is wrong.
    """
    found: dict[Path, None] = {}
    for path in paths:
        inside = [] if (path / "arms").is_dir() or not path.is_dir() else sorted(path.iterdir())
        # A run that broke off before its first arm is named, too, instead of left out.
        runs = [
            entry
            for entry in inside
            if entry.name != DAMAGED
            and ((entry / "arms").is_dir() or (entry / "config.yaml").is_file())
        ]
        found |= dict.fromkeys(runs or [path])
    return list(found)


def report_runs(
    folders: Sequence[Path],
    out: Path,
    console: Console,
    title: str | None = None,
    known: Sequence[Row] = (),
) -> list[RunRow]:
    """Write tables, plots and a page about runs, finished or not, and print the table of means.

    Args:
        folders: Run folders.
        out: Folder for `report.html`, `results.csv`, `results.md`, `results.tex` and `plots/`.
        console: Where to print.
        title: What the page is called; None for the name of the folder around `out`.
        known: Rows of runs whose folders are elsewhere. They are in the tables and in the plots of
            rows, not in those of rounds and scores.

    Returns:
        A row for each arm of each run that has a folder.

    Raises:
        DataError: naming the first folder that is no run folder.
        ConfigurationError: if `out` cannot be written to.
    """
    entries, damage = read_rows(folders)
    rows = beside_known([entry.row for entry in entries], known)
    title = title or out.resolve().parent.name
    plots = _plots(entries, rows)
    final = _final_models(entries)
    try:
        (out / "plots").mkdir(parents=True, exist_ok=True)
        (out / "results.csv").write_text(csv_text(rows), encoding="utf-8")
        (out / "results.md").write_text(f"# {title}\n\n{markdown(rows)}", encoding="utf-8")
        (out / "results.tex").write_text(latex(rows), encoding="utf-8")
        for plot in plots:
            plot.save(out / "plots")
        page = page_of(title, rows, damage, plots, final)
        (out / "report.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            expected("--out", f"a folder that can be written to ({error.strerror})", str(out))
        ) from error
    console.print(terminal(rows, title))
    console.print(headline(rows), highlight=False, soft_wrap=True)
    damage = [*damage, *final.damage]
    for sentence in damage[:MAX_NAMED]:
        console.print(sentence, highlight=False, soft_wrap=True, markup=False)
    if len(damage) > MAX_NAMED:
        console.print(f"and {len(damage) - MAX_NAMED} more damaged files or lines.")
    for name in ("report.html", "results.csv", "results.md", "results.tex", "plots"):
        console.print(f"{name + ':':<13}{out / name}", highlight=False, soft_wrap=True)
    return entries


def _final_models(entries: Sequence[RunRow]) -> Section:
    subjects = [
        Subject(
            folder=entry.folder,
            arm=entry.arm.name,
            labels=(entry.row.run, entry.row.data, entry.row.attack_name, entry.row.defence),
            asr=entry.row.final_asr,
            round=entry.arm.rounds[-1].number,
        )
        for entry in entries
    ]
    return section_of(subjects, ("run", "data", "attack", "defence"))


def _plots(entries: Sequence[RunRow], rows: Sequence[Row]) -> list[Plot]:
    single = (
        asr_curves(entries),
        accuracy_curves(entries),
        cost_against_quality(rows),
        roc(entries),
        score_distributions(entries),
    )
    return [*heat_maps(rows), *(plot for plot in single if plot is not None)]
