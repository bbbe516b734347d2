"""The detector's figures on what it has never seen, and the detector that is shipped.

    python -m benchmarks.detector_results --data ../shared/data [--ship]

Plays the shadow federations (`benchmarks/detector_data.py`), trains detectors that leave out a data
set, a trigger family, an architecture or a modality, judges them and the statistics of published
defences on the same updates, and writes `docs/results/detector.json`, Markdown tables beside it and
the main one into README.md. `--ship` also trains on all data sets and writes the detector into the
package. Federations and detectors are kept in the store: it can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks import detector_data as data
from benchmarks.detection_figures import Scores, evaluation, figures
from benchmarks.detector_tables import FIGURES, write_results
from fl_shield.detector.meta_detector import Calibration, MetaDetector
from fl_shield.detector.store import load_detector, save_detector
from fl_shield.meta import ALGORITHMS, MetaTraining, train_detector
from fl_shield.meta.calibrate import benign_log_odds, hardest, log_odds
from fl_shield.shadow.table import EpisodeTable
from fl_shield.simulations.meta_train import facts_of_training

SETTINGS = MetaTraining()
SINGLE = MetaTraining(networks=1, steps=1000)
"""Comparisons of kinds of training make do with less than the headline, each side with the same."""

FALSE_ALARMS = 0.01
CLEAN_SAMPLES = (4, 8, 16, 32, 64)
CLEAN_SAMPLE_RUNS = 5
"""Federations of each data set in the table of clean samples."""

LANGUAGE = ("ag_news", "sst2", "docstrings")

WITHOUT: dict[str, Callable[[str], bool]] = {
    "all descriptors": lambda name: True,
    "without extrapolation": lambda name: "@" not in name or "@raw/" in name,
    "without raw weights": lambda name: "@raw/" not in name,
    "without candidate triggers": lambda name: not name.endswith(("jumbo", "inverted", "tokens")),
    "without tokens": lambda name: (
        not name.startswith(("token_", "pull_")) and not name.endswith("guided")
    ),
    "without comparison of clients": lambda name: (
        not name.startswith(("excess_", "peer", "answer_peer", "near", "alone"))
    ),
    "without geometry": lambda name: "@" in name,
    "clean probes only": lambda name: "@" not in name or name.endswith("/clean"),
}
"""Ablations: which descriptors are left."""


Judged = dict[str, list[EpisodeTable]]
"""Rounds of the evaluation by data set."""

Keep = Callable[[EpisodeTable], bool]
"""Says which rounds a detector learns from."""


class Study:
    """Trains what is asked for, once, and scores with it."""

    def __init__(
        self, store: Path, training: Sequence[EpisodeTable], settings: MetaTraining = SETTINGS
    ) -> None:
        self._store, self.training, self._settings = store, training, settings

    def detector(
        self,
        name: str,
        keep: Keep,
        settings: MetaTraining | None = None,
        columns: Callable[[str], bool] | None = None,
    ) -> MetaDetector:
        """Return an uncalibrated detector from the training rounds that `keep` keeps."""
        folder = self._store / "detectors" / name
        if not (folder / "detector.json").is_file():
            kept = [with_columns(t, columns) for t in self.training if keep(t)]
            tables = [table for table in kept for _ in range(data.times(table))]
            trained = train_detector(tables, settings or self._settings)
            save_detector(folder, *trained, {"name": name})
        return load_uncalibrated(folder)

    def without(self, *domains: str) -> MetaDetector:
        """Return a detector that has not seen these data sets."""
        name = "without-" + "-".join(sorted(domains)) if domains else "all"
        return self.detector(name, lambda t: t.domain not in domains)

    def calibration(self, *held_out: str) -> Calibration:
        """Return the calibration of `without(*held_out)`, from its own data sets only."""
        seen = [t for t in self.training if t.domain not in held_out]
        odds = benign_log_odds(seen, lambda domain: self.without(*held_out, domain))
        return hardest(odds, FALSE_ALARMS)


def load_uncalibrated(folder: Path) -> MetaDetector:
    """Return a detector whose scores are log-odds."""
    detector = load_detector(folder)
    return MetaDetector(detector.networks, detector.spec)


def with_columns(table: EpisodeTable, columns: Callable[[str], bool] | None) -> EpisodeTable:
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
    """Return the log-odds of all rounds."""
    return [log_odds(detector, table) for table in tables]


def row(table: str, held_out: str, statistic: str, **values: Any) -> dict[str, Any]:
    """Return one row of the results."""
    return {"table": table, "held_out": held_out, "statistic": statistic, **values}


def unseen_data_sets(study: Study, judged: Judged, _: argparse.Namespace) -> Iterator[Any]:
    """The main table: every data set by a detector that never saw it, and rivals beside it."""
    for name, tables in track(judged.items(), "unseen data sets"):
        detector, calibration = study.without(name), study.calibration(name)
        scores = [(s - calibration.offset) / calibration.scale for s in scored(detector, tables)]
        found = evaluation(tables, scores, calibration.threshold)
        yield row("data set", name, "fl_shield", clean_samples=16, **found)
        for rival in tables[0].facts["rivals"]:
            theirs = [np.array(t.facts["rivals"][rival], dtype=np.float64) for t in tables]
            yield row("data set", name, rival, clean_samples=16, **figures(tables, theirs))
        for how, part in _parts(tables).items():
            chosen = [s for t, s in zip(tables, scores, strict=True) if part(t)]
            kept = [t for t in tables if part(t)]
            if any(t.malicious.any() for t in kept):
                yield row(f"data set, {how}", name, "fl_shield", **figures(kept, chosen))


def _seen(held_out: str, is_seen: Callable[[str], bool] = bool) -> Keep:
    return lambda table: table.domain != held_out and is_seen(table.domain)


def _other(fact: str, kind: str) -> Keep:
    return lambda table: bool(table.facts[fact] != kind)


def _parts(tables: Sequence[EpisodeTable]) -> dict[str, Keep]:
    return {
        "attackers kept out": lambda t: t.facts["aggregate"] == "honest",
        "attackers averaged in": lambda t: t.facts["aggregate"] == "all",
    }


def unseen_kinds(study: Study, judged: Judged, _: argparse.Namespace) -> Iterator[Any]:
    """Trigger families and architectures that no training federation had."""
    tables = [t for part in judged.values() for t in part]
    for fact in ("trigger", "architecture"):
        for kind in track(sorted({t.facts[fact] for t in tables}), f"unseen {fact}s"):
            chosen = [t for t in tables if t.facts[fact] == kind]
            if not any(t.malicious.any() for t in chosen):
                continue
            detector = study.detector(f"without-{fact}-{kind}", _other(fact, kind), SINGLE)
            yield row(fact, kind, "fl_shield", **figures(chosen, scored(detector, chosen)))


def modalities(study: Study, judged: Judged, _: argparse.Namespace) -> Iterator[Any]:
    """Does vision help language, and language vision?"""
    for name, tables in track(judged.items(), "modalities"):
        for seen, is_seen in (
            ("vision", lambda d: d not in LANGUAGE),
            ("language", lambda d: d in LANGUAGE),
            ("both", lambda d: True),
        ):
            detector = study.detector(
                f"{seen}-without-{name}",
                _seen(name, is_seen),
                SINGLE,
            )
            found = figures(tables, scored(detector, tables))
            yield row("trained on", name, "fl_shield", trained_on=seen, **found)


def ablations(study: Study, judged: Judged, _: argparse.Namespace) -> Iterator[Any]:
    """What each group of descriptors and each algorithm is worth."""
    for name, tables in track(judged.items(), "ablations"):
        for index, (what, columns) in enumerate(WITHOUT.items()):
            detector = study.detector(
                f"columns-{index}-without-{name}", _seen(name), SINGLE, columns
            )
            found = figures(tables, scored(detector, tables))
            yield row("descriptors", name, "fl_shield", descriptors=what, **found)


def algorithms(study: Study, judged: Judged, _: argparse.Namespace) -> Iterator[Any]:
    """Which outer loop learns best, before any adaptation."""
    for name, tables in track(judged.items(), "algorithms"):
        for algorithm in ALGORITHMS:
            # The others take several tasks a step, each with inner steps: fewer steps, equal time.
            steps = SINGLE.steps if algorithm == "multi_task" else SINGLE.steps // 3
            settings = replace(SINGLE, algorithm=algorithm, steps=steps)
            detector = study.detector(f"{algorithm}-without-{name}", _seen(name), settings)
            found = figures(tables, scored(detector, tables))
            yield row("algorithm", name, "fl_shield", algorithm=algorithm, **found)


def clean_samples(study: Study, _: Judged, options: argparse.Namespace) -> Iterator[Any]:
    """Quality against the number of clean samples that the server holds."""
    for samples in CLEAN_SAMPLES:
        if samples != 16:
            data.describe_again(
                options.store, options.data, options.workers, samples, CLEAN_SAMPLE_RUNS
            )
        for name, seed in data.EVALUATION.items():
            first = 1_000_000 + seed
            runs = {f"{name}-{first + i:07d}" for i in range(CLEAN_SAMPLE_RUNS)}
            tables = [
                t for t in data.tables_of(options.store / "evaluation", samples) if t.run in runs
            ]
            found = figures(tables, scored(study.without(name), tables))
            yield row("clean samples", name, "fl_shield", clean_samples=samples, **found)


WEAKEST = 6
"""Unseen triggers and architectures of lowest AUROC that the card names."""

KNOWN_FAILURES = (
    "Attackers whose update does little, above all those who only keep a settled backdoor alive.",
    "Language: skewed federations and single-class clients raise false alarms, poison stays below.",
    "Clean-label poisoning that hardly takes.",
    "A majority of attackers in a round; a single update has nothing to be compared with.",
)


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def ship(study: Study, rows: Sequence[dict[str, Any]]) -> None:
    """Write the detector of all data sets and descriptors, with the figures of its siblings.

    It is the teacher of the one in the package (`benchmarks/slim_detector.py`). The figures of its
    card are those of detectors trained alike but without what is judged.
    """
    started = time.monotonic()
    detector, calibration = study.without(), study.calibration()
    command = "make results-detector SHIP=--ship"
    card = facts_of_training(study.training, SETTINGS, [], FALSE_ALARMS, command)
    own = [r for r in rows if r["statistic"] == "fl_shield"]
    kinds = sorted(
        (r for r in own if r["table"] in ("trigger", "architecture")), key=lambda r: r["auroc"]
    )
    card |= {
        "calibration": asdict(calibration),
        "seconds": round(time.monotonic() - started, 1),
        "unseen_data_sets": {
            r["held_out"]: {k: _short(r.get(k)) for k in FIGURES}
            for r in own
            if r["table"] == "data set"
        },
        "weakest_on_unseen": {
            f"{r['table']} {r['held_out']}": _short(r["auroc"]) for r in kinds[:WEAKEST]
        },
        "known_failures": KNOWN_FAILURES,
    }
    save_detector(data.TEACHER, detector.networks, detector.spec, card)


PARTS: dict[str, Callable[[Study, Judged, argparse.Namespace], Iterator[Any]]] = {
    "data": unseen_data_sets,
    "kinds": unseen_kinds,
    "modalities": modalities,
    "descriptors": ablations,
    "algorithms": algorithms,
    "samples": clean_samples,
}
"""What is measured, one piece at a time."""


def main() -> None:
    parser = data.parser_of(__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART",
                        help=f"parts to measure now: {', '.join(PARTS)}")  # fmt: skip
    parser.add_argument(
        "--ship", action="store_true", help="write the detector that teaches the package's"
    )
    options = data.options_of(parser)
    data.play_all(options.store, options.data, options.workers)
    study = Study(options.store, data.tables_of(options.store / "training"))
    every = data.tables_of(options.store / "evaluation")
    judged = {name: [t for t in every if t.domain == name] for name in data.JUDGED}
    rows = {name: _measured(options.store, name) for name in PARTS}
    for name in options.only:
        if rows[name] is None:
            rows[name] = [*PARTS[name](study, judged, options)]
            file = _rows_file(options.store, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(rows[name]), encoding="utf-8")
    if rows["data"] is None:
        print("Nothing is written yet: the main table (--only data) is still to be measured.")
        return
    missing = [name for name, part in rows.items() if part is None]
    found = [r for part in rows.values() for r in part or ()]
    if options.ship:
        ship(study, found)
    write_results(found, study.training, asdict(SETTINGS), missing)


def _rows_file(store: Path, name: str) -> Path:
    return store / "rows" / f"{name}.json"


def _measured(store: Path, name: str) -> Any:
    """Return the rows of a part that was measured earlier."""
    file = _rows_file(store, name)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


if __name__ == "__main__":
    main()
