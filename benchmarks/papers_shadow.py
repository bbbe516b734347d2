"""Shadow tasks behind MetaShield at sample level, and its detectors that leave out a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from fl_shield.detector.meta_detector import MetaDetector
from fl_shield.detector.store import load_detector
from fl_shield.meta.settings import MetaTraining
from fl_shield.scanning.learning import (
    SETTINGS,
    clean_scores,
    learn,
    limits_of,
    save_sample_detector,
)
from fl_shield.scanning.shadow_tasks import ShadowSize, play
from fl_shield.shadow.table import EpisodeTable, read_tables, write_tables
from fl_shield.simulations.shadow import load_domain

DOMAINS = ("ag_news", "mnist", "sst2", "glyphs", "digits", "cifar10", "docstrings")

SIZE = ShadowSize(without=("transformer", "resnet_small"))
"""Two cores: the slow architectures are left out."""


def play_tasks(store: Path, data: str, count: int) -> None:
    """Play `count` shadow tasks of each data set; what is there is kept."""
    jobs = [(name, seed) for seed in range(count) for name in DOMAINS]
    for name, seed in track(jobs, "shadow tasks"):
        file = _file(store, name, seed)
        if not file.is_file():
            write_tables(file, play(load_domain(name, data), seed, SIZE))


def tables_of(store: Path, count: int) -> list[EpisodeTable]:
    """Return the tables of the first `count` tasks of each data set, those that are there."""
    files = [_file(store, name, seed) for name in DOMAINS for seed in range(count)]
    return [table for file in files if file.is_file() for table in read_tables(file)]


class Detectors:
    """Trains detectors that have not seen some data sets, each once.

    Args:
        store: Where they are kept.
        tables: Tables of all data sets.
        settings: How they are trained.
    """

    def __init__(
        self, store: Path, tables: Sequence[EpisodeTable], settings: MetaTraining = SETTINGS
    ) -> None:
        self._store, self.tables, self.settings = store, list(tables), settings

    def without(self, held_out: Sequence[str] = ()) -> MetaDetector:
        """Return a detector that has seen none of these data sets, without thresholds."""
        folder = self._folder("parts", held_out)
        if not (folder / "detector.json").is_file():
            seen = [t for t in self.tables if t.domain not in held_out]
            save_sample_detector(folder, learn(seen, self.settings), {}, seen, self.settings)
        return load_detector(folder)

    def folder(self, held_out: Sequence[str] = ()) -> Path:
        """Return the folder of a detector with thresholds, from what it has seen only."""
        folder = self._folder("whole", held_out)
        if not (folder / "detector.json").is_file():
            seen = [t for t in self.tables if t.domain not in held_out]
            limits = limits_of(clean_scores(seen, self.without, held_out))
            save_sample_detector(
                folder, self.without(held_out), limits, seen, self.settings,
                {"held_out": sorted(held_out)},
            )  # fmt: skip
        return folder

    def _folder(self, kind: str, held_out: Sequence[str]) -> Path:
        name = "-".join(["without", *sorted(held_out)]) if held_out else "all"
        return self._store / "detectors" / kind / name


def _file(store: Path, name: str, seed: int) -> Path:
    return store / "shadow" / f"{name}-{seed:05d}.safetensors"
