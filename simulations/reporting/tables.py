"""Rows as tables: every run as CSV; means over seeds for the terminal, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields

from rich.table import Table

from fl_shield.simulations.reporting.rows import Row

COLUMNS = tuple(field.name for field in fields(Row))
"""Columns of the CSV file, in order."""

HEADINGS = (
    "data", "attack", "attackers", "defence", "seeds", "ASR", "highest ASR", "MA",
    "TPR", "FPR", "s / round", "seen",
)  # fmt: skip
"""Columns of the tables of means."""

NUM_TEXT = 4
"""Leading columns that are words, or read like them."""


@dataclass(frozen=True)
class Spread:
    """Mean and spread of a figure over seeds.

    Attributes:
        mean: Mean of the seeds that have it, None if none has.
        deviation: Sample standard deviation, None for fewer than two seeds.
    """

    mean: float | None
    deviation: float | None

    def percent(self) -> str:
        """Return both as percentages.

        >>> Spread(0.9512, 0.013).percent(), Spread(None, None).percent()
        ('95.1 ± 1.3', '–')
        """
        if self.mean is None:
            return "–"
        more = "" if self.deviation is None else f" ± {100 * self.deviation:.1f}"
        return f"{100 * self.mean:.1f}{more}"


@dataclass(frozen=True)
class Group:
    """The runs of one cell over its seeds."""

    rows: tuple[Row, ...]

    @property
    def first(self) -> Row:
        """Any of its rows: they share what names the cell."""
        return self.rows[0]

    def spread(self, name: str) -> Spread:
        """Return mean and spread of a figure."""
        values = [value for row in self.rows if (value := getattr(row, name)) is not None]
        return Spread(
            statistics.fmean(values) if values else None,
            statistics.stdev(values) if len(values) > 1 else None,
        )

    def texts(self) -> list[str]:
        """Return the cells of its line in a table, under `HEADINGS`; shares in percent."""
        row = self.first
        seconds = self.spread("seconds_per_round").mean
        unfinished = sum(not entry.finished for entry in self.rows)
        return [
            row.data,
            row.attack_name,
            "–" if not row.attackers else f"{100 * row.attackers:g} %",
            row.defence,
            str(len(self.rows)) + (f" ({unfinished} unfinished)" if unfinished else ""),
            *(self.spread(n).percent() for n in ("final_asr", "max_asr", "final_ma", "tpr", "fpr")),
            "–" if seconds is None else f"{seconds:.2f}",
            row.seen or "–",
        ]


def groups_of(rows: Sequence[Row]) -> list[Group]:
    """Return rows grouped over seeds: by data set, then attack, the undefended first."""
    found: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(row.cell, []).append(row)
    return sorted((Group(tuple(members)) for members in found.values()), key=_order)


def csv_text(rows: Sequence[Row]) -> str:
    """Return a table with a line for every row."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_plain(getattr(row, name)) for name in COLUMNS])
    return stream.getvalue()


def markdown(rows: Sequence[Row]) -> str:
    """Return the table of means in Markdown; shares are percentages."""
    lines = [HEADINGS, tuple("---" for _ in HEADINGS), *(g.texts() for g in groups_of(rows))]
    return "".join(f"| {' | '.join(text.replace('|', '∣') for text in line)} |\n" for line in lines)


def latex(rows: Sequence[Row]) -> str:
    """Return the table of means in LaTeX, for the package `booktabs`; shares are percentages."""
    columns = "l" * NUM_TEXT + "r" * (len(HEADINGS) - NUM_TEXT)
    lines = [" & ".join(map(_escaped, group.texts())) + r" \\" for group in groups_of(rows)]
    head = " & ".join(map(_escaped, HEADINGS)) + r" \\"
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *lines,
         r"\bottomrule", r"\end{tabular}", ""]
    )  # fmt: skip


def terminal(rows: Sequence[Row], title: str) -> Table:
    """Return the table of means for a terminal; shares are percentages."""
    table = Table(title=f"{title} (shares in percent)", title_justify="left")
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if number < NUM_TEXT else "right")
    for group in groups_of(rows):
        table.add_row(*group.texts())
    return table


def _order(group: Group) -> tuple[object, ...]:
    row = group.first
    rank = {"none": 0, "meta_shield": 1}.get(row.defence, 2)
    return (row.data, row.attackers > 0, row.attack_name, row.attackers, rank, row.defence)


def _plain(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _escaped(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
        "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        "±": r"$\pm$", "–": "--",
    }  # fmt: skip
    return "".join(special.get(letter, letter) for letter in text)
