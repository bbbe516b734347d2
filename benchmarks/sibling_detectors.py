"""Siblings of the package's detector that leave out a data set each, for studies on it.

    python -m benchmarks.sibling_detectors --data ../shared/data [--only mnist]

Whoever studies the shield on MNIST wants a detector that has not seen MNIST. These are learned from
the small set of federations (`benchmarks/detector_data.py`), read what the package's detector
reads, and take their threshold from the data sets that they know. Writes
`benchmarks/detectors/without-*`, and the README's table of what they do on what they have not seen.
"""

from __future__ import annotations

import time
from dataclasses import asdict

from benchmarks import detector_data as data
from benchmarks.detection_figures import evaluation
from benchmarks.detector_results import FALSE_ALARMS, Study, scored
from benchmarks.marked_table import write_table
from benchmarks.slim_detector import SHOWN, SIBLINGS
from fl_shield.detector.store import load_detector, save_detector
from fl_shield.simulations.meta_train import facts_of_training

FOLDER = data.TEACHER.parent


def main() -> None:
    parser = data.parser_of(__doc__)
    parser.add_argument("--only", nargs="+", choices=data.JUDGED, default=list(data.JUDGED))
    options = data.options_of(parser)
    training, judged = data.small_set(options)
    study = Study(options.store / "siblings", training, SIBLINGS)
    for name in options.only:
        started = time.monotonic()
        detector, calibration = study.without(name), study.calibration(name)
        tables = [table for table in judged if table.domain == name]
        scores = [s - calibration.offset for s in scored(detector, tables)]
        found = evaluation(tables, scores, calibration.threshold)
        seen = [table for table in training if table.domain != name]
        command = f"python -m benchmarks.sibling_detectors --only {name}"
        card = facts_of_training(seen, SIBLINGS, [name], FALSE_ALARMS, command)
        card |= {
            "calibration": asdict(calibration),
            "unseen_data_sets": {name: {key: round(found[key], 4) for key in SHOWN}},
            "seconds": round(time.monotonic() - started, 1),
        }
        save_detector(FOLDER / f"without-{name}", detector.networks, detector.spec, card)
        print(name, card["unseen_data_sets"][name], flush=True)
    write_table(data.ROOT / "README.md", "sibling-table", unseen_table())


def unseen_table() -> str:
    """Return what the siblings do on the data set that each has not seen, as Markdown."""
    cards = [load_detector(folder).card for folder in sorted(FOLDER.glob("without-*"))]
    found = {name: row for card in cards for name, row in card["unseen_data_sets"].items()}
    lines = [f"| figure | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    for key, title in SHOWN.items():
        lines.append(f"| {title} | {' | '.join(f'{row[key]:.3f}' for row in found.values())} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
