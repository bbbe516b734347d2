"""Siblings of the package's detector that leave out a data set each, for studies on it.

    python -m benchmarks.sibling_detectors --data ../shared/data [--only mnist]

Whoever studies the shield on MNIST wants a detector that has not seen MNIST. These are learned from
the small set of federations (`benchmarks/detector_data.py`), read what the package's detector
reads, and take their threshold from the data sets that they know. Writes
`benchmarks/detectors/without-*`.
"""

from __future__ import annotations

import time
from dataclasses import asdict

from benchmarks import detector_data as data
from benchmarks.detection_figures import evaluation
from benchmarks.detector_results import FALSE_ALARMS, Study, scored
from benchmarks.slim_detector import SHOWN, SIBLINGS
from fl_shield.detector.store import save_detector
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


if __name__ == "__main__":
    main()
