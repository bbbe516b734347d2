"""The federations behind the detector and its figures: seeds, and the commands that play them.

Nothing of the evaluation is seen in training: its federations have seeds of their own (from one
million on), and the detector that is judged on a data set was trained on the others.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from fl_shield.shadow.table import EpisodeTable, read_tables
from fl_shield.simulations.shadow import tables_folder

ROOT = Path(__file__).resolve().parent.parent

TEACHER = ROOT / "benchmarks" / "detectors" / "all-descriptors"
"""The detector that reads every descriptor, as `make results-detector SHIP=--ship` writes it."""

JUDGED = ("mnist", "cifar10", "ag_news", "sst2", "digits")
"""Data sets of the evaluation."""

LEARNED = ("ag_news", "cifar10", "digits", "docstrings", "glyphs", "mnist", "photos", "sst2")
"""Data sets that detectors are learned from."""


@dataclass(frozen=True)
class Size:
    """Federations of each data set: training, potent, odd and working ones, evaluation."""

    training: int
    potent: int
    odd: int
    working: int
    evaluation: int


FULL, SMALL = Size(60, 15, 18, 40, 20), Size(16, 6, 3, 14, 12)
"""What detectors are learned from, and what is enough to teach one by another."""

FIRST = 5
"""First seed of the training federations."""

POTENT = {
    "digits": 11000, "mnist": 12000, "cifar10": 13000, "glyphs": 14000, "sst2": 15000,
    "ag_news": 16000, "docstrings": 17000, "photos": 18000,
}  # fmt: skip
"""First seeds of the training federations in which more happens."""

ODD = {
    "digits": 21000, "mnist": 22000, "cifar10": 23000, "glyphs": 24000, "sst2": 25000,
    "ag_news": 26000, "docstrings": 27000, "photos": 28000,
}  # fmt: skip
ODDITY = 0.4
"""First seeds of the training federations with many odd clients, and how many are odd."""

WORKING, OFTEN = 31000, 3
"""First seed of the training federations in which most backdoors work, and how many times as often
their rounds are seen."""

EVALUATION = {"mnist": 100, "cifar10": 200, "ag_news": 300, "sst2": 400, "digits": 500}
"""First seeds (after one million) of the federations of the evaluation."""


def play_all(store: Path, data_root: Path, workers: int, size: Size = FULL) -> None:
    """Play and describe all federations; what is there is kept."""
    names = f"domains=[{','.join(LEARNED)}]"
    training = [f"store={store / 'training'}", f"seed={FIRST}", f"runs={size.training}", names]
    _shadow([*training, "kind=training"], data_root, workers)
    for name, seed in POTENT.items():
        potent = [f"store={store / 'training'}", f"seed={seed}", f"runs={size.potent}"]
        _shadow([*potent, f"domains=[{name}]", "kind=potent"], data_root, workers)
    for name, seed in ODD.items():
        odd = [f"store={store / 'training'}", f"seed={seed}", f"runs={size.odd}"]
        odd += [f"domains=[{name}]", "kind=potent", f"ranges.oddity={ODDITY}"]
        _shadow(odd, data_root, workers)
    working = [f"store={store / 'training'}", f"seed={WORKING}", f"runs={size.working}", names]
    _shadow([*working, "kind=working"], data_root, workers)
    for name, seed in EVALUATION.items():
        judged = [f"store={store / 'evaluation'}", f"seed={seed}", f"runs={size.evaluation}"]
        judged += [f"domains=[{name}]", "kind=evaluation", "keep_weights=true"]
        _shadow(judged, data_root, workers)


def describe_again(store: Path, data_root: Path, workers: int, samples: int, runs: int) -> None:
    """Describe the first federations of each evaluation with another number of clean samples."""
    for name, seed in EVALUATION.items():
        again = [f"store={store / 'evaluation'}", f"seed={seed}", f"runs={runs}"]
        again += [f"domains=[{name}]", "kind=evaluation", "keep_weights=true"]
        _shadow([*again, f"clean_samples={samples}"], data_root, workers)


def tables_of(folder: Path, clean_samples: int = 16) -> list[EpisodeTable]:
    """Return all rounds of a store."""
    files = sorted(tables_folder(folder, clean_samples).glob("*.safetensors"))
    return [table for file in files for table in read_tables(file)]


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark on these federations is told."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--store", type=Path, default=ROOT / "runs" / "detector")
    parser.add_argument("--workers", type=int, default=2)
    return parser


def options_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return what the command line says, and compute with one thread from here on."""
    options = parser.parse_args()
    options.data, options.store = options.data.absolute(), options.store.absolute()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return options


def small_set(options: argparse.Namespace) -> tuple[list[EpisodeTable], list[EpisodeTable]]:
    """Play the small set of federations, and return the rounds of training and of evaluation."""
    play_all(options.store, options.data, options.workers, SMALL)
    training, judged = (
        first_tables(options.store / part, SMALL) for part in ("training", "evaluation")
    )
    return training, judged


def first_tables(folder: Path, size: Size) -> list[EpisodeTable]:
    """Return the rounds of a store that belong to a size, whatever else was played into it."""
    counts = {FIRST: size.training, WORKING: size.working}
    counts |= dict.fromkeys(POTENT.values(), size.potent) | dict.fromkeys(ODD.values(), size.odd)
    counts |= {1_000_000 + first: size.evaluation for first in EVALUATION.values()}
    wanted = {first + index for first, count in counts.items() for index in range(count)}
    return [t for t in tables_of(folder) if _seed(t) in wanted]


def times(table: EpisodeTable) -> int:
    """Return how many times a round is put among those that a detector is learned from."""
    return OFTEN if WORKING <= _seed(table) < 1_000_000 else 1


def _seed(table: EpisodeTable) -> int:
    return int(table.run.rpartition("-")[2])


def _shadow(settings: list[str], data_root: Path, workers: int) -> None:
    command = [sys.executable, "-m", "fl_shield.simulations.cli", "shadow", *settings]
    subprocess.run([*command, f"data_root={data_root}", f"workers={workers}"], cwd=ROOT, check=True)
