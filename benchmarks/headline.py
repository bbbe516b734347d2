"""The defences against the attacks: `docs/results/headline.csv`, plots, and what was claimed.

    python -m benchmarks.headline data_root=../shared/data workers=2 'include=[{data:mnist,seed:0}]'

Runs what is left of the study `headline` (`conf/study/headline.yaml`), whole or in pieces, and
writes a row a run, the tables of means (two of them into README), the plots, and for every attacked
cell whether the shield

- ends with an attack success rate at most 2 points above the clean run's, and main accuracy at most
  1 point below it;
- is at least as good as the best rival of the cell on ASR (within 1 point) without losing more main
  accuracy.

`--report-only` writes all this from what is there. Runs whose folders are gone keep their rows, and
are not run again while their settings are the same; plots of rounds and scores are those of a
block of runs that is whole (`benchmarks/headline_plots.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.detector_study import SIBLINGS
from benchmarks.headline_plots import PAGE, write_plots
from benchmarks.headline_table import ORACLE, UNDEFENDED, defences_table, everywhere_table
from benchmarks.marked_table import write_table
from benchmarks.study_results import RESULTS, ROOT, Record, number, rows_of_study, write_csv

SHIELD, LIVE = "meta_shield", "meta_shield_live"
"""The shield as it is, and calibrated on honest clients that the server plays itself."""

UNSEEN = [
    *(
        f'+catalogue.defences.{name}=["defence={name}",'
        '"defence.detector={detectors}/without-{data}"]'
        for name in (SHIELD, LIVE)
    ),
    "+catalogue.data_sets.cifar10_settled.defences="
    '{meta_shield:["defence.detector={detectors}/without-cifar10"]}',
]
"""A data set is new to the detector that judges on it."""

ASR_MARGIN, ACCURACY_MARGIN, RIVAL_MARGIN = 0.02, 0.01, 0.01
CELL = ("data", "attack", "trigger", "attackers", "seed")
SLACK = 1e-9


def against_clean(row: Record) -> str:
    """Return what a run lacks of the clean one, empty if nothing.

    >>> why = against_clean({"final_asr": "0.05", "clean_asr": "0.0", "final_ma": "0.97",
    ...                      "clean_ma": "0.975"})
    >>> why
    'ASR 5.0 points above clean'
    """
    asr, clean_asr, accuracy, clean = (
        number(row, key) for key in ("final_asr", "clean_asr", "final_ma", "clean_ma")
    )
    if asr is None or clean_asr is None or accuracy is None or clean is None:
        return "no clean run to compare with"
    lacks = []
    if asr > clean_asr + ASR_MARGIN + SLACK:
        lacks.append(f"ASR {100 * (asr - clean_asr):.1f} points above clean")
    if accuracy < clean - ACCURACY_MARGIN - SLACK:
        lacks.append(f"main accuracy {100 * (clean - accuracy):.1f} points below clean")
    return "; ".join(lacks)


def against_ideal(row: Record, ideal: Record, when: str = "final") -> str | None:
    """Return what a run lacks of the one that leaves out exactly the attackers.

    Args:
        row: The run.
        ideal: The other, empty if it was not played.
        when: `"final"` for the last round, `"late"` for means over the last third of the rounds.

    Returns:
        Empty if it lacks nothing, None if either was not measured.
    """
    held = {
        f"{name}_{what}": of.get(f"{when}_{what}", "")
        for name, of in (("final", row), ("clean", ideal))
        for what in ("asr", "ma")
    }
    return against_clean(held) if all(held.values()) else None


def against_rivals(row: Record, rivals: Sequence[Record]) -> str:
    """Return the rival that beats a run on ASR by more than a point without losing accuracy.

    A rival that pays for a low ASR with main accuracy (below the shield's by over a point) does not
    count: a model that has learned nothing obeys no trigger either.
    """
    asr, accuracy = number(row, "final_asr"), number(row, "final_ma")
    better = [
        (other, found)
        for rival in rivals
        if (found := number(rival, "final_asr")) is not None
        and (kept := number(rival, "final_ma")) is not None
        and (other := rival["defence"])
        and asr is not None
        and accuracy is not None
        and kept >= accuracy - ACCURACY_MARGIN
        and found < asr - RIVAL_MARGIN - SLACK
    ]
    if not better or asr is None:
        return ""
    name, best = min(better, key=lambda pair: pair[1])
    return f"{name} is {100 * (asr - best):.1f} points lower in ASR"


@dataclass(frozen=True)
class Judged:
    """A run of the shield, held against the others of its cell.

    Attributes:
        run: The run.
        lacks: What it lacks of the clean run.
        beaten: The rival that is better, empty if none is.
        rivals: How many rivals ran.
        ideal_lacks: What the run that leaves out exactly the attackers lacks of the clean one; None
            if it was not played.
        lacks_of_ideal: What the run lacks of that, None likewise.
        late_lacks_of_ideal: The same by means over the last third of the rounds.
    """

    run: Record
    lacks: str
    beaten: str
    rivals: int
    ideal_lacks: str | None
    lacks_of_ideal: str | None
    late_lacks_of_ideal: str | None

    @classmethod
    def of(cls, run: Record, cell: Sequence[Record]) -> Judged:
        """Return a run of a cell, judged."""
        known = (SHIELD, LIVE, ORACLE, UNDEFENDED)
        rivals = [row for row in cell if row["defence"] not in known]
        ideal: Record = next((row for row in cell if row["defence"] == ORACLE), {})
        return cls(
            run,
            against_clean(run),
            against_rivals(run, rivals),
            len(rivals),
            against_clean(ideal) if ideal else None,
            against_ideal(run, ideal),
            against_ideal(run, ideal, "late"),
        )

    @property
    def exception(self) -> str:
        """A line of the table of exceptions, empty if there is nothing to except."""
        why = "; ".join(text for text in (self.lacks, self.beaten) if text)
        if not why:
            return ""
        ideal = "not played" if self.ideal_lacks is None else self.ideal_lacks or "nothing"
        facts = [self.run[key] for key in (*CELL, "defence", "seen")]
        return f"| {' | '.join([*facts, why, ideal])} |"


def summary(rows: Sequence[Record]) -> str:
    """Return the Markdown page of claims: how many cells hold, every exception, and clean FPR."""
    attacked = [row for row in rows if row["trigger"]]
    cells: dict[tuple[str, ...], list[Record]] = {}
    for row in attacked:
        cells.setdefault(tuple(row[key] for key in CELL), []).append(row)
    lines = [
        "# The headline study\n",
        "Written by `make results-headline`, with the runs that are finished. `meta_shield_live` "
        "is the shield calibrated every round on honest clients that the server plays itself. Runs "
        "of a data set and seed start from one checkpoint, which every machine that rows come from "
        "makes for itself; processors round differently, and so the checkpoints differ a little. "
        "Seconds a round are of several machines, two runs at a time: what the shield takes is "
        "[measured apart](../cost.md).\n",
        f"- Runs: {len(rows)}, of which {len(attacked)} attacked, in {len(cells)} cells.",
    ]
    exceptions: list[str] = []
    for name in (SHIELD, LIVE):
        found = [
            Judged.of(run, members)
            for _, members in sorted(cells.items())
            for run in members
            if run["defence"] == name
        ]
        if found:
            lines += _claims(name, found)
        exceptions += [judged.exception for judged in found if judged.exception]
    if exceptions:
        lines += [
            "\n## Exceptions\n",
            "The last column says what a run lacks that leaves out exactly the attackers.\n",
            f"| {' | '.join(CELL)} | defence | seen | what | without the attackers |",
            "|---" * (len(CELL) + 4) + "|",
        ]
        lines += exceptions
    lines += ["\n## Honest updates flagged where nobody attacks\n", "| defence | mean FPR | runs |"]
    lines += ["|---|---|---|", *_clean_rates(rows)]
    return "\n".join(lines) + "\n"


def _claims(name: str, found: Sequence[Judged]) -> list[str]:
    held = sum(not judged.lacks for judged in found)
    beside = [text for judged in found if (text := judged.lacks_of_ideal) is not None]
    late = [text for judged in found if (text := judged.late_lacks_of_ideal) is not None]
    compared = [judged for judged in found if judged.rivals]
    best = sum(not judged.beaten for judged in compared)
    return [
        f"- `{name}` stays within 2 points of the clean run's ASR and 1 point of its main "
        f"accuracy in {held} of {len(found)} cells.",
        "- It stays as near to the run that leaves out exactly the attackers in "
        f"{beside.count('')} of the {len(beside)} cells in which that was played; by means over "
        "the last third of the rounds, which sway less than a single round, in "
        f"{late.count('')} of {len(late)}.",
        f"- No rival is better than `{name}` in {best} of the {len(compared)} cells that rivals "
        "have run in.",
    ]


def _clean_rates(rows: Sequence[Record]) -> list[str]:
    rates: dict[str, list[float]] = {}
    for row in rows:
        rate = number(row, "fpr")
        if not row["trigger"] and row["defence"] != UNDEFENDED and rate is not None:
            rates.setdefault(row["defence"], []).append(rate)
    return [
        f"| {name} | {100 * sum(found) / len(found):.1f} % | {len(found)} |"
        for name, found in sorted(rates.items())
    ]


def main() -> None:
    arguments = sys.argv[1:]
    if not any(argument.startswith(("detectors=", "+catalogue.")) for argument in arguments):
        arguments = [f"detectors={SIBLINGS}", *UNSEEN, *arguments]
    table = RESULTS / "headline.csv"
    rows = [row for row in rows_of_study("headline", arguments, table) if row["finished"] == "yes"]
    if not rows:
        sys.exit("No run of the study is finished yet.")
    write_csv(table, sorted(rows, key=lambda row: row["run"]))
    report = ROOT / "studies" / "headline" / "report"
    means = (report / "results.md").read_text(encoding="utf-8").partition("\n\n")[2]
    against_all = defences_table(rows, "mnist", "0.2")
    everywhere = everywhere_table(rows, (SHIELD, LIVE))
    plots = write_plots(rows, report.parent)
    page = (
        f"{summary(rows)}\n## All defences\n\n{against_all}\n\n## Everywhere\n\n{everywhere}\n"
        f"\n{plots}\n## Means over seeds, in percent\n\n{means}"
    )
    write_table(ROOT / "README.md", "headline-table", f"{against_all}\n\n{everywhere}")
    PAGE.write_text(page, encoding="utf-8")
    print(summary(rows))


if __name__ == "__main__":
    main()
