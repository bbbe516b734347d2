"""The detector in the package: taught by one that reads more, without what costs most.

    python -m benchmarks.slim_detector --data ../shared/data [--ship]

Plays the first federations of training and evaluation (`benchmarks/detector_data.py`), teaches a
slim detector, lets it go on from there with descriptors that its teacher did not have, and holds
four against each other on federations of the evaluation, which none of them has seen: the teacher,
the teacher without the columns that are left out, the pupil, and the pupil that went on. All know
the data sets: what is measured is what leaving out costs and what is new brings;
`docs/results/detector.md` has what the teacher's siblings do on data sets new to them, the cards of
`benchmarks/detectors` what those of the pupil do. The threshold is that of siblings that leave out
a data set each. Writes `docs/results/slim.json` and `.md`; `--ship` writes the last detector into
the package.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import detector_data as data
from benchmarks.detection_figures import evaluation
from benchmarks.detector_results import Study, scored, with_columns
from fl_shield.detector import SHIPPED
from fl_shield.detector.meta_detector import MetaDetector
from fl_shield.detector.store import load_detector, own_facts, save_detector
from fl_shield.meta import MetaTraining
from fl_shield.meta.slimming import slim_detector
from fl_shield.meta.widening import widen_detector
from fl_shield.shadow.table import EpisodeTable

RESULTS = data.ROOT / "docs" / "results"
LEFT_OUT = ("*@1/*", "*@10/*", "*/jumbo", "*/inverted")
"""Two of three scales, and candidate triggers for images: three quarters of the passes."""

SETTINGS = MetaTraining(leave_out=LEFT_OUT, learning_rate=5e-4, steps=800)
FURTHER = MetaTraining(leave_out=LEFT_OUT, learning_rate=5e-4, steps=1000)
"""How the pupil goes on: as detectors are learned, at a quarter of the rate."""

SIBLINGS = MetaTraining(leave_out=LEFT_OUT, column_dropout=0.4, steps=3000)
"""Detectors that leave out a data set each, and read what the package's reads."""

PUPIL, LAST = "taught to do without", "and taught what is new"
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
    started = time.monotonic()
    pupil = slim_detector(teacher, training, SETTINGS)
    networks, spec = widen_detector(pupil, training, FURTHER)
    seconds = time.monotonic() - started
    calibration = Study(options.store / "siblings", training, SIBLINGS).calibration()
    last = MetaDetector(networks, spec, calibration)
    masked = MetaDetector(teacher.networks, teacher.spec, teacher.calibration)
    fewer = [with_columns(table, set(pupil.columns).__contains__) for table in judged]
    rows: list[Row] = [
        *rows_of("every descriptor", teacher, judged),
        *rows_of("without what is left out", masked, fewer),
        *rows_of(PUPIL, pupil, judged),
        *rows_of(LAST, last, judged),
    ]
    write(rows, len({t.run for t in training}), len(training))
    if options.ship:
        ship(teacher, last, rows, training, seconds)


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
    teacher: MetaDetector,
    last: MetaDetector,
    rows: Sequence[Row],
    training: Sequence[EpisodeTable],
    seconds: float,
) -> None:
    """Write a detector into the package; its card is the teacher's, and what was done to it."""
    own = [row for row in rows if row["detector"] == LAST]
    card = own_facts(teacher.card) | {
        "calibration": asdict(last.calibration),
        "slimmed": {
            "left_out": LEFT_OUT,
            "command": COMMAND,
            "settings": asdict(SETTINGS),
            "further": asdict(FURTHER),
            "federations": len({table.run for table in training}),
            "rounds": len(training),
            "seconds": round(seconds, 1),
            "figures_on_new_federations": {
                row["data"]: {key: round(row[key], 4) for key in SHOWN} for row in own
            },
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
