"""Quality of the detector against the number of clean samples that the server holds."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from benchmarks import detector_data as data
from benchmarks.detection_figures import figures
from benchmarks.detector_study import scored
from benchmarks.detector_tables import SAMPLES, row
from fl_shield.detector.meta_detector import MetaDetector

HELD = (0, 4, 8, 16, 32, 64)
"""Clean samples of the server; without any it makes its probes up."""

FEDERATIONS = 6
"""Federations of each data set."""

Without = Callable[[str], MetaDetector]
"""Returns a detector that has not seen a data set."""


def sample_rows(options: argparse.Namespace, without: Without) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of clean samples and data set.

    The first federations of each evaluation are played, and described with fewer and with more.
    """
    few, folder = replace(data.EVALUATION, runs=FEDERATIONS), data.judged_in(options.store)
    for samples in HELD:
        data.play(
            few, folder, options.data, options.workers, data.KEEP, data.NO_RIVALS,
            clean_samples=samples,
        )  # fmt: skip
        for name, tables in data.tables_by_data_set(folder, few, samples).items():
            found = figures(tables, scored(without(name), tables))
            yield row(SAMPLES, name, "fl_shield", clean_samples=samples, **found)
