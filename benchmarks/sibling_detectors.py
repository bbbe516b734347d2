"""Siblings of the package's detector that leave out a data set each, for studies on it.

    python -m benchmarks.sibling_detectors --data ../shared/data [--only mnist]

Whoever studies the shield on MNIST wants a detector that has not seen MNIST. These are learned from
the small set of federations (`benchmarks/detector_data.py`), read what the package's detector
reads, and take their threshold from the data sets that they know. Writes
`benchmarks/detectors/without-*`.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks import detector_data as data
from benchmarks.detection_figures import clean_rate, deployed, figures
from benchmarks.detector_results import FALSE_ALARMS, Study, scored
from benchmarks.slim_detector import LEFT_OUT, SHOWN
from fl_shield.detector.store import save_detector
from fl_shield.meta import MetaTraining
from fl_shield.simulations.meta_train import facts_of_training

SETTINGS = MetaTraining(leave_out=LEFT_OUT)
FOLDER = data.TEACHER.parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--store", type=Path, default=data.ROOT / "runs" / "detector")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=data.JUDGED, default=list(data.JUDGED))
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    store = options.store.absolute()
    data.play_all(store, options.data.absolute(), options.workers, data.SMALL)
    training = data.first_tables(store / "training", data.SMALL)
    study = Study(store / "siblings", training, SETTINGS)
    judged = data.first_tables(store / "evaluation", data.SMALL)
    for name in options.only:
        started = time.monotonic()
        detector, calibration = study.without(name), study.calibration(name)
        tables = [table for table in judged if table.domain == name]
        scores = [s - calibration.offset for s in scored(detector, tables)]
        rate, _ = clean_rate(tables, scores, calibration.threshold)
        found = figures(tables, scores) | deployed(tables, scores) | {"clean_fpr": rate}
        seen = [table for table in training if table.domain != name]
        command = f"python -m benchmarks.sibling_detectors --only {name}"
        card = facts_of_training(seen, SETTINGS, [name], FALSE_ALARMS, command)
        card |= {
            "calibration": asdict(calibration),
            "unseen_data_sets": {name: {key: round(found[key], 4) for key in SHOWN}},
            "seconds": round(time.monotonic() - started, 1),
        }
        save_detector(FOLDER / f"without-{name}", detector.networks, detector.spec, card)
        print(name, card["unseen_data_sets"][name], flush=True)


if __name__ == "__main__":
    main()
