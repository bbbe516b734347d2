"""Quality of the detector against the number of clean samples that the server holds.

    python -m benchmarks.detector_samples --data ../shared/data

Plays the first federations of each evaluation, describes them with fewer and with more clean
samples, judges them by the committed detectors that have not seen the data set, and puts the rows
into `docs/results/detector.json` and its page, which `make results-detector` wrote. That command
measures the same rows by the detectors that it has just learned.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import detector_data as data
from benchmarks.detection_figures import figures
from benchmarks.detector_study import scored
from benchmarks.detector_tables import RESULTS, SAMPLES, row, write_results
from fl_shield.detector.meta_detector import MetaDetector
from fl_shield.detector.store import load_detector

SIBLINGS = data.ROOT / "benchmarks" / "detectors"
"""Where detectors that leave out a data set each are."""

HELD = (0, 4, 8, 16, 32, 64)
"""Clean samples of the server; without any it makes its probes up."""

FEDERATIONS = 6
"""Federations of each data set."""

Without = Callable[[str], MetaDetector]
"""Returns a detector that has not seen a data set."""


def sample_rows(
    options: argparse.Namespace, without: Without, held: Sequence[int] = HELD
) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of clean samples and data set."""
    few, folder = replace(data.EVALUATION, runs=FEDERATIONS), data.judged_in(options.store)
    for samples in held:
        data.play(few, folder, options.data, options.workers, data.KEEP, clean_samples=samples)
        for name, tables in data.evaluation_tables(folder, few, samples).items():
            found = figures(tables, scored(without(name), tables))
            yield row(SAMPLES, name, "fl_shield", clean_samples=samples, **found)


def committed(name: str) -> MetaDetector:
    """Return the committed detector that has not seen a data set; its scores are log-odds."""
    detector = load_detector(SIBLINGS / f"without-{name}")
    return MetaDetector(detector.networks, detector.spec)


def main() -> None:
    parser = data.parser_of(__doc__)
    parser.add_argument("--held", type=int, nargs="+", default=HELD, metavar="N",
                        help="clean samples of the server, one number a row")  # fmt: skip
    options = data.options_of(parser)
    file: Path = RESULTS / "detector.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    others = [r for r in record["rows"] if r["table"] != SAMPLES]
    is_whole = set(HELD) <= set(options.held)
    missing = [p for p in record["still_to_measure"] if not (p == "samples" and is_whole)]
    found = [*sample_rows(options, committed, options.held)]
    write_results([*others, *found], record["training"], missing)


if __name__ == "__main__":
    main()
