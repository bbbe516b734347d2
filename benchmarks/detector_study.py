"""Detectors that leave something out, each learned once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks import detector_data as data
from benchmarks.described_rounds import digest_of
from benchmarks.detection_figures import Scores
from fl_shield.detector import SHIPPED
from fl_shield.detector.meta_detector import Calibration, MetaDetector
from fl_shield.detector.store import CARD, VERSION, load_detector, read_card, save_detector
from fl_shield.meta import MetaTraining, train_detector
from fl_shield.meta.calibrate import cautious, log_odds, unseen_log_odds
from fl_shield.shadow.table import EpisodeTable
from fl_shield.simulations.in_parallel import in_parallel

SETTINGS = MetaTraining(leave_out=data.NOT_MADE, column_dropout=0.4, steps=2800)
SINGLE = replace(SETTINGS, networks=1, experts=0, steps=1000)
"""Comparisons of kinds of training make do with less than the headline, each side with the same."""

FALSE_ALARMS = 0.01

SIBLINGS = data.ROOT / "benchmarks" / "detectors"
"""Where the committed detectors that leave out a data set each are."""

COMMITTED = {
    "all": SHIPPED,
    **{f"without-{name}": SIBLINGS / f"without-{name}" for name in data.JUDGED},
}
"""Committed detectors by the name of their plan."""

LEARNED_FROM = "learned_from"
"""What the card of a committed detector calls the digest of its rounds and settings."""

Keep = Callable[[EpisodeTable], bool]
"""Says which rounds a detector learns from."""

Columns = Callable[[str], bool]
"""Says which descriptors a detector reads."""


@dataclass(frozen=True)
class Plan:
    """A detector to be learned: its name, and from what."""

    name: str
    keep: Keep
    settings: MetaTraining = SETTINGS
    columns: Columns | None = None


Way = Callable[[str], Plan]
"""Plan of a detector without a data set."""


class Study:
    """Trains what is asked for, once, and scores with it.

    Args:
        store: Folder that detectors are kept in.
        training: Rounds to learn from.
        workers: Detectors learned at a time.
        committed: Folders of calibrated detectors by the name of their plan. One that was learned
            from the same rounds with the same settings is not learned again.
    """

    def __init__(
        self,
        store: Path,
        training: Sequence[EpisodeTable],
        workers: int,
        committed: Mapping[str, Path] | None = None,
    ) -> None:
        self._store, self.training, self._workers = store, training, workers
        self._committed = committed or {}

    def learn(self, *plans: Plan) -> None:
        """Learn detectors that are not there yet, side by side."""
        by_folder = {self._folder(plan): plan for plan in plans}
        missing = [plan for folder, plan in by_folder.items() if not (folder / CARD).is_file()]
        for plan, outcome in in_parallel(self._learn, missing, self._workers):
            if isinstance(outcome, Exception):
                raise outcome
            print(f"learned {plan.name}", flush=True)

    def learn_calibrated(self, *names: str) -> None:
        """Learn detectors that leave out a data set each, and those that calibrate them."""
        others = sorted({table.domain for table in self.training})
        new = [name for name in names if not self.is_committed(unseen(name))]
        plans = [unseen(*{name, other}) for name in new for other in others]
        self.learn(*{plan.name: plan for plan in plans}.values())

    def detector(self, plan: Plan) -> MetaDetector:
        """Return an uncalibrated detector, whose scores are log-odds."""
        self.learn(plan)
        detector = load_detector(self._folder(plan))
        return MetaDetector(detector.networks, detector.spec)

    def without(self, *domains: str) -> MetaDetector:
        """Return a detector that has not seen these data sets."""
        return self.detector(unseen(*domains))

    def calibration(self, *held_out: str) -> Calibration:
        """Return the calibration of `without(*held_out)`, from its own data sets only."""
        seen = [t for t in self.training if t.domain not in held_out]
        found = unseen_log_odds(seen, lambda domain: self.without(*held_out, domain))
        return cautious(found, FALSE_ALARMS)

    def calibrated(self, *held_out: str) -> MetaDetector:
        """Return `without(*held_out)` as it is shipped, calibrated."""
        plan = unseen(*held_out)
        if self.is_committed(plan):
            return load_detector(self._folder(plan))
        detector = self.detector(plan)
        return MetaDetector(detector.networks, detector.spec, self.calibration(*held_out))

    def rounds_of(self, plan: Plan) -> list[EpisodeTable]:
        """Return what a detector is learned from, each round under the domain it is drawn as.

        What counts as a data set where one is left out is not always what is drawn as one.
        """
        kept = [with_columns(t, plan.columns) for t in self.training if plan.keep(t)]
        return [replace(table, domain=data.drawn_as(table)) for table in kept]

    def _learn(self, plan: Plan) -> None:
        torch.set_num_threads(1)
        trained = train_detector(self.rounds_of(plan), plan.settings)
        save_detector(self._folder(plan), *trained, {"name": plan.name})

    def learned_from(self, plan: Plan) -> str:
        """Return a digest of the rounds and settings of a plan."""
        kept = sorted(
            (self.described[table.run, table.round_number], with_columns(table, plan.columns).names)
            for table in self.training
            if plan.keep(table)
        )
        return digest(asdict(plan.settings), VERSION, kept)

    @cached_property
    def described(self) -> dict[tuple[str, int], str]:
        """Digests of all rounds, by federation and number of the round."""
        return {(table.run, table.round_number): digest_of(table) for table in self.training}

    def is_committed(self, plan: Plan) -> bool:
        """Return whether a detector is there that was learned elsewhere, and calibrated."""
        return self._folder(plan) == self._committed.get(plan.name)

    def _folder(self, plan: Plan) -> Path:
        wanted, folder = self.learned_from(plan), self._committed.get(plan.name)
        if folder is not None and read_card(folder).get(LEARNED_FROM) == wanted:
            return folder
        return self._store / wanted  # plans that come to the same are learned once


def unseen(*domains: str) -> Plan:
    """Return the plan of a detector that has not seen these data sets."""
    name = "without-" + "-".join(sorted(domains)) if domains else "all"
    return Plan(name, lambda table: table.domain not in domains)


def digest(*facts: Any) -> str:
    """Return a short name of facts: what was made from others is not taken for these."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def with_columns(table: EpisodeTable, columns: Columns | None) -> EpisodeTable:
    """Return a table with the columns that are wanted."""
    if columns is None:
        return table
    kept = [i for i, name in enumerate(table.names) if columns(name)]
    names = tuple(table.names[i] for i in kept)
    return EpisodeTable(
        table.domain, table.run, table.round_number, names, table.raw[:, kept],
        table.malicious, table.client_ids, table.facts,
    )  # fmt: skip


def scored(detector: MetaDetector, tables: Sequence[EpisodeTable]) -> Scores:
    """Return the scores of all rounds, log-odds where the detector is not calibrated."""
    return [log_odds(detector, table) for table in tables]
