"""The federations behind the detector and its figures: seeds, and the commands that play them.

Nothing of the evaluation is seen in training: its federations have seeds of their own (from one
million on), and the detector that is judged on a data set was trained on the others.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fl_shield.shadow.table import EpisodeTable, read_tables
from fl_shield.simulations.shadow import tables_folder

ROOT = Path(__file__).resolve().parent.parent

JUDGED = ("mnist", "cifar10", "ag_news", "sst2", "digits")
"""Data sets of the evaluation."""

LEARNED = ("ag_news", "cifar10", "digits", "docstrings", "glyphs", "mnist", "sst2")
"""Data sets that detectors are learned from."""

FIRST, RUNS = 5, 60
"""Training federations of each data set: the first seed and their number."""

POTENT = {
    "digits": 11000, "mnist": 12000, "cifar10": 13000, "glyphs": 14000, "sst2": 15000,
    "ag_news": 16000, "docstrings": 17000,
}  # fmt: skip
POTENT_RUNS = 15
"""Training federations in which more happens: first seeds and their number."""

ODD = {
    "digits": 21000, "mnist": 22000, "cifar10": 23000, "glyphs": 24000, "sst2": 25000,
    "ag_news": 26000, "docstrings": 27000,
}  # fmt: skip
ODD_RUNS, ODDITY = 18, 0.4
"""Training federations with many odd clients: first seeds, their number, and how many are odd."""

EVALUATION = {"mnist": 100, "cifar10": 200, "ag_news": 300, "sst2": 400, "digits": 500}
EVALUATION_RUNS = 20
"""Federations of the evaluation: first seeds (after one million) and their number."""


def play_all(store: Path, data_root: Path, workers: int) -> None:
    """Play and describe all federations; what is there is kept."""
    names = f"domains=[{','.join(LEARNED)}]"
    training = [f"store={store / 'training'}", f"seed={FIRST}", f"runs={RUNS}", names]
    _shadow([*training, "kind=training"], data_root, workers)
    for name, seed in POTENT.items():
        potent = [f"store={store / 'training'}", f"seed={seed}", f"runs={POTENT_RUNS}"]
        _shadow([*potent, f"domains=[{name}]", "kind=potent"], data_root, workers)
    for name, seed in ODD.items():
        odd = [f"store={store / 'training'}", f"seed={seed}", f"runs={ODD_RUNS}"]
        odd += [f"domains=[{name}]", "kind=potent", f"ranges.oddity={ODDITY}"]
        _shadow(odd, data_root, workers)
    for name, seed in EVALUATION.items():
        judged = [f"store={store / 'evaluation'}", f"seed={seed}", f"runs={EVALUATION_RUNS}"]
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


def _shadow(settings: list[str], data_root: Path, workers: int) -> None:
    command = [sys.executable, "-m", "fl_shield.simulations.cli", "shadow", *settings]
    subprocess.run([*command, f"data_root={data_root}", f"workers={workers}"], cwd=ROOT, check=True)
