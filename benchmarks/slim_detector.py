"""The detector in the package: taught by one that reads more, without what costs most.

    python -m benchmarks.slim_detector --data ../shared/data [--ship]

Plays the first federations of training and evaluation (`benchmarks/detector_data.py`), teaches a
slim detector, lets it go on from there with descriptors that its teacher did not have, learns
another from scratch, and holds them against each other on federations of the evaluation, which none
of them has seen: the teacher, the teacher without the columns that are left out, the pupil, the
pupil that went on, and the one from scratch. All know the data sets: what is measured is what
leaving out costs and what is new brings; `docs/results/detector.md` has what the teacher's siblings
do on data sets new to them, the cards of `benchmarks/detectors` what siblings of the last one do.
The threshold of the last two is that of siblings that leave out a data set each. Writes
`docs/results/slim.json` and `.md`; `--ship` writes the last detector into the package.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import detector_data as data
from benchmarks.detection_figures import evaluation
from benchmarks.detector_results import (
    FALSE_ALARMS,
    KNOWN_FAILURES,
    Study,
    scored,
    with_columns,
)
from fl_shield.detector import SHIPPED
from fl_shield.detector.meta_detector import MetaDetector
from fl_shield.detector.store import load_detector, save_detector
from fl_shield.meta import MetaTraining
from fl_shield.meta.slimming import slim_detector
from fl_shield.meta.widening import widen_detector
from fl_shield.shadow.table import EpisodeTable
from fl_shield.simulations.meta_train import facts_of_training

RESULTS = data.ROOT / "docs" / "results"
LEFT_OUT = ("*@1/*", "*@10/*", "*/jumbo", "*/inverted")
"""Two of three scales, and candidate triggers for images: three quarters of the passes."""

SETTINGS = MetaTraining(leave_out=LEFT_OUT, learning_rate=5e-4, steps=800)
FURTHER = MetaTraining(leave_out=LEFT_OUT, learning_rate=5e-4, steps=1000)
"""How the pupil goes on: as detectors are learned, at a quarter of the rate."""

SIBLINGS = MetaTraining(leave_out=LEFT_OUT, column_dropout=0.4, steps=3000)
"""Detectors that leave out a data set each, and read what the package's reads."""

PUPIL, WIDENED, LAST = "taught to do without", "and taught what is new", "learned from scratch"
COMMAND = "make results-slim SHIP=--ship"
SHOWN = {
    "auroc": "AUROC, one round",
    "tpr_at_1fpr": "TPR at 1 % FPR, one round",
    "tpr_at_1fpr_5_rounds": "TPR at 1 % FPR, five rounds",
    "clean_fpr": "FPR on clean runs, calibrated for 1 %",
    "excluded_malicious": "malicious clients excluded at defaults, five rounds",
    "excluded_benign": "benign clients excluded at defaults, five rounds",
}

Row = Mapping[str, Any]


def main() -> None:
    parser = data.parser_of(__doc__)
    parser.add_argument("--ship", action="store_true", help="write the detector into the package")
    options = data.options_of(parser)
    training, judged = data.small_set(options)
    teacher = load_detector(data.TEACHER)
    pupil = slim_detector(teacher, training, SETTINGS)
    networks, spec = widen_detector(pupil, training, FURTHER)
    started = time.monotonic()
    study = Study(options.store / "siblings", training, SIBLINGS)
    scratch, calibration = study.without(), study.calibration()
    seconds = time.monotonic() - started
    widened = MetaDetector(networks, spec, calibration)
    last = MetaDetector(scratch.networks, scratch.spec, calibration)
    masked = MetaDetector(teacher.networks, teacher.spec, teacher.calibration)
    fewer = [with_columns(table, set(pupil.columns).__contains__) for table in judged]
    rows: list[Row] = [
        *rows_of("every descriptor", teacher, judged),
        *rows_of("without what is left out", masked, fewer),
        *rows_of(PUPIL, pupil, judged),
        *rows_of(WIDENED, widened, judged),
        *rows_of(LAST, last, judged),
    ]
    write(rows, len({t.run for t in training}), len(training))
    if options.ship:
        ship(last, rows, training, seconds)


def rows_of(name: str, detector: MetaDetector, judged: Sequence[EpisodeTable]) -> list[Row]:
    """Return the figures of a detector, a row a data set."""
    rows: list[Row] = []
    for domain in data.JUDGED:
        tables = [table for table in judged if table.domain == domain]
        found = evaluation(tables, scored(detector, tables), detector.threshold)
        rows.append({"detector": name, "data": domain, "clean_samples": 16, **found})
    return rows


def write(rows: Sequence[Row], federations: int, rounds: int) -> None:
    """Write `docs/results/slim.json` and `.md`."""
    rounded = [{k: round(v, 4) if isinstance(v, float) else v for k, v in r.items()} for r in rows]
    record = {
        "command": COMMAND,
        "left_out": LEFT_OUT,
        "settings": asdict(SETTINGS),
        "further": asdict(FURTHER),
        "training": {"federations": federations, "rounds": rounds},
        "rows": rounded,
    }
    text = json.dumps(record, indent=1) + "\n"
    (RESULTS / "slim.json").write_text(text, encoding="utf-8")
    names = list(dict.fromkeys(row["detector"] for row in rows))
    page = [
        "# What the detector in the package does not read",
        f"Written by `{COMMAND}`. Left out: {', '.join(f'`{p}`' for p in LEFT_OUT)}. Federations "
        "that neither teacher nor pupil has seen, of data sets that both have. What is new: "
        "descriptors of words and phrases that the teacher did not have, and a data set.",
    ]
    for key, title in SHOWN.items():
        page += [f"## {title}", _table(rows, names, key)]
    (RESULTS / "slim.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")
    print("\n\n".join(page[2:]))


def ship(
    last: MetaDetector, rows: Sequence[Row], training: Sequence[EpisodeTable], seconds: float
) -> None:
    """Write a detector into the package; its card has what its siblings do on unseen data sets."""
    siblings = [load_detector(f).card for f in sorted(data.TEACHER.parent.glob("without-*"))]
    card = facts_of_training(training, SIBLINGS, [], FALSE_ALARMS, COMMAND) | {
        "calibration": asdict(last.calibration),
        "seconds": round(seconds, 1),
        "unseen_data_sets": {k: v for c in siblings for k, v in c["unseen_data_sets"].items()},
        "known_failures": KNOWN_FAILURES,
        "figures_on_new_federations": {
            row["data"]: {key: round(row[key], 4) for key in SHOWN}
            for row in rows
            if row["detector"] == LAST
        },
    }
    save_detector(SHIPPED, last.networks, last.spec, card)


def _table(rows: Sequence[Row], names: Sequence[str], key: str) -> str:
    cells = {(row["detector"], row["data"]): row[key] for row in rows}
    out = ["| detector | " + " | ".join(data.JUDGED) + " |", "|---" * (len(data.JUDGED) + 1) + "|"]
    for name in names:
        values = " | ".join(f"{cells[name, domain]:.3f}" for domain in data.JUDGED)
        out.append(f"| {name} | {values} |")
    return "\n".join(out)


if __name__ == "__main__":
    main()
