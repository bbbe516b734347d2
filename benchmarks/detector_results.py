"""The detector's figures on what it has never seen, and the detector that is shipped.

    python -m benchmarks.detector_results --data ../shared/data [--ship]

Plays the shadow federations (`benchmarks/detector_data.py`), trains detectors that leave out a data
set, a trigger family, an architecture or a modality, judges them and the statistics of published
defences on the same updates, and writes `docs/results/detector.json`, Markdown tables beside it and
the main one into README.md. What is played and learned is kept in the store, and what is measured
in the JSON: it can be stopped and started again, on another machine as well.

Data sets are judged by the committed detectors that leave them out (`benchmarks/detectors`), if
those were learned from the same rounds with the same settings. `--ship` learns and writes them
anew, and the package's detector, which is learned from all data sets.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from rich.progress import track

from benchmarks import detector_data as data
from benchmarks.described_rounds import digest_of
from benchmarks.detection_figures import by_harm, evaluation, figures
from benchmarks.detector_samples import sample_rows
from benchmarks.detector_study import (
    COMMITTED,
    FALSE_ALARMS,
    LEARNED_FROM,
    SETTINGS,
    SIBLINGS,
    SINGLE,
    Columns,
    Keep,
    Plan,
    Study,
    Way,
    digest,
    scored,
    unseen,
)
from benchmarks.detector_tables import (
    ADAPTIVE,
    COMMAND,
    FEDERATIONS,
    FIGURES,
    GRADED,
    HELD_BACK,
    KNOWN_TRIGGER,
    NO_EXPERTS,
    ODD,
    ONE_CLASS,
    Record,
    Row,
    row,
    training_facts,
)
from benchmarks.graded_weights import ASKED, graded, lost_by_oddity, means, passed_on
from benchmarks.known_trigger import known_trigger_scores
from fl_shield.detector import SHIPPED
from fl_shield.detector.ensemble import readers_of
from fl_shield.detector.meta_detector import MetaDetector
from fl_shield.detector.store import save_detector
from fl_shield.meta import ALGORITHMS
from fl_shield.shadow.describe import CLEAN_SAMPLES
from fl_shield.shadow.table import EpisodeTable
from fl_shield.simulations.meta_train import facts_of_training
from fl_shield.simulations.shadow import RANGES, load_domain

WITHOUT: dict[str, Columns] = {
    "all descriptors": lambda name: True,
    "without a part of the way": lambda name: "@0.25/" not in name,
    "without raw weights": lambda name: "@raw/" not in name,
    "without squares": lambda name: not name.endswith("/patches"),
    "without searched phrases": lambda name: not name.endswith("/searched"),
    "without slopes": lambda name: not name.endswith("/slopes"),
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


def unseen_data_sets(study: Study, judged: Judged, _: argparse.Namespace) -> Iterator[Any]:
    """The main table: every data set by a detector that never saw it, and rivals beside it."""
    study.learn_calibrated(*judged)
    for name, tables in track(judged.items(), "unseen data sets"):
        detector = study.calibrated(name)
        scores = scored(detector, tables)
        found = evaluation(tables, scores, detector.threshold)
        found |= passed_on(tables, scores, graded(detector.calibration))
        yield row("data set", name, "fl_shield", clean_samples=CLEAN_SAMPLES, **found)
        readers = MetaDetector(readers_of(detector.networks), detector.spec)
        yield row(NO_EXPERTS, name, NO_EXPERTS, **figures(tables, scored(readers, tables)))
        for rival in tables[0].facts["rivals"]:
            theirs = [np.array(t.facts["rivals"][rival], dtype=np.float64) for t in tables]
            yield row(
                "data set", name, rival, clean_samples=CLEAN_SAMPLES, **figures(tables, theirs)
            )
        other = [t for t in study.training if t.domain == name]
        every = [*scores, *scored(detector, other)]
        for harm, figure in by_harm([*tables, *other], every).items():
            yield row("harm", name, "fl_shield", harm=harm, **figure)
        wrong = [t for t in other if t.facts.get("held_back")]
        yield row(HELD_BACK, name, "fl_shield", **_at_defaults(detector, wrong))
        for how, part in PARTS_OF_ROUNDS.items():
            chosen = [s for t, s in zip(tables, scores, strict=True) if part(t)]
            kept = [t for t in tables if part(t)]
            if any(t.malicious.any() for t in kept):
                yield row(f"data set, {how}", name, "fl_shield", **figures(kept, chosen))


def _at_defaults(detector: MetaDetector, tables: Sequence[EpisodeTable]) -> dict[str, Any]:
    """Return the figures of a detector, and what the default policy passes on by its scores."""
    scores = scored(detector, tables)
    return figures(tables, scores) | passed_on(tables, scores, graded(detector.calibration))


PARTS_OF_ROUNDS: dict[str, Keep] = {
    "attackers kept out": lambda t: bool(t.facts["aggregate"] == "honest"),
    "attackers averaged in": lambda t: bool(t.facts["aggregate"] == "all"),
}


def unseen_kinds(study: Study, judged: Judged, _: argparse.Namespace) -> Iterator[Any]:
    """Trigger families and architectures that no training federation had."""
    tables = [t for part in judged.values() for t in part]
    kinds = [
        (fact, kind)
        for fact in ("trigger", "architecture")
        for kind in sorted({t.facts[fact] for t in tables if t.malicious.any()})
    ]
    plans = {
        (fact, kind): Plan(f"without-{fact}-{kind}", _other(fact, kind), SINGLE)
        for fact, kind in kinds
    }
    study.learn(*plans.values())
    for (fact, kind), plan in plans.items():
        chosen = [t for t in tables if t.facts[fact] == kind]
        found = figures(chosen, scored(study.detector(plan), chosen))
        yield row(fact, kind, "fl_shield", **found)


def odd_clients(study: Study, judged: Judged, _: argparse.Namespace) -> Iterator[Any]:
    """What honest clients lose that are odd: tiny, of one class, badly labelled, long or fast."""
    study.learn_calibrated(*judged)
    for name, tables in track(judged.items(), "odd clients"):
        detector = study.calibrated(name)
        other = [t for t in study.training if t.domain == name]
        every = [*tables, *(t for t in other if not data.is_one_class(t))]
        policy = graded(detector.calibration)
        for oddity, found in lost_by_oddity(every, scored(detector, every), policy).items():
            yield row(ODD, name, "fl_shield", oddity=oddity, **found)
        many = [t for t in other if data.MANY_OF_ONE_CLASS.has(t)]
        yield row(ONE_CLASS, name, "fl_shield", **_at_defaults(detector, many))


def graded_policies(study: Study, _: Judged, __: argparse.Namespace) -> Iterator[Any]:
    """What settings of the policy pass on, on data sets that no figure of ours is about."""
    found: dict[str, list[dict[str, float | None]]] = {what: [] for what in ASKED}
    chosen_on = [name for name in data.LEARNED if name not in data.JUDGED]
    study.learn_calibrated(*chosen_on)
    for name in track(chosen_on, "graded"):
        detector = study.calibrated(name)
        tables = [t for t in study.training if t.domain == name]
        scores = scored(detector, tables)
        for what, asked in ASKED.items():
            found[what].append(passed_on(tables, scores, graded(detector.calibration, **asked)))
    for what, rows in found.items():
        yield row(GRADED, "training", "fl_shield", policy=what, **means(rows))


def _other(fact: str, kind: str) -> Keep:
    return lambda table: bool(table.facts[fact] != kind)


def compared(
    study: Study, judged: Judged, table: str, label: str, ways: dict[str, Way]
) -> Iterator[Any]:
    """Yield the rows of detectors learned in several ways, each without what it is judged on."""
    plans = {(what, name): way(name) for what, way in ways.items() for name in judged}
    study.learn(*plans.values())
    for (what, name), plan in plans.items():
        found = figures(judged[name], scored(study.detector(plan), judged[name]))
        yield row(table, name, "fl_shield", **{label: what}, **found)


def modalities(study: Study, judged: Judged, _: argparse.Namespace) -> Iterator[Any]:
    """Does vision help language, and language vision?"""
    kinds: dict[str, Callable[[str], bool]] = {
        "vision": lambda domain: domain not in data.LANGUAGE,
        "language": lambda domain: domain in data.LANGUAGE,
        "both": lambda domain: True,
    }

    def way(kind: str, is_seen: Callable[[str], bool]) -> Way:
        return lambda name: Plan(
            f"{kind}-without-{name}", lambda t: t.domain != name and is_seen(t.domain), SINGLE
        )

    ways = {kind: way(kind, is_seen) for kind, is_seen in kinds.items()}
    return compared(study, judged, "trained on", "trained_on", ways)


SHARES = (0.125, 0.25, 0.5, 1.0)
"""Shares of the training federations, the smaller among the larger."""


def federations(study: Study, judged: Judged, _: argparse.Namespace) -> Iterator[Any]:
    """What it is worth to have played more of them, at equal steps."""

    def way(share: float) -> Way:
        return lambda name: Plan(
            f"share-{share:g}-without-{name}",
            lambda t: t.domain != name and _place(t.run) < share,
            SINGLE,
        )

    ways = {f"{share:.1%}": way(share) for share in SHARES}
    return compared(study, judged, FEDERATIONS, "share", ways)


def _place(run: str) -> float:
    """Return a number from 0 to 1 that a federation draws by its name."""
    return crc32(run.encode()) / 2**32


def ablations(study: Study, judged: Judged, _: argparse.Namespace) -> Iterator[Any]:
    """What each group of descriptors is worth."""

    def way(index: int, columns: Columns) -> Way:
        return lambda name: Plan(
            f"columns-{index}-without-{name}", lambda t: t.domain != name, SINGLE, columns
        )

    ways = {what: way(index, columns) for index, (what, columns) in enumerate(WITHOUT.items())}
    return compared(study, judged, "descriptors", "descriptors", ways)


def algorithms(study: Study, judged: Judged, _: argparse.Namespace) -> Iterator[Any]:
    """Which outer loop learns best, before any adaptation."""

    def way(algorithm: str) -> Way:
        # The others take several tasks a step, each with inner steps: fewer steps, equal time.
        steps = SINGLE.steps if algorithm == "multi_task" else SINGLE.steps // 3
        settings = replace(SINGLE, algorithm=algorithm, steps=steps)
        return lambda name: Plan(
            f"{algorithm}-without-{name}", lambda t: t.domain != name, settings
        )

    ways = {algorithm: way(algorithm) for algorithm in ALGORITHMS}
    return compared(study, judged, "algorithm", "algorithm", ways)


def clean_samples(study: Study, judged: Judged, options: argparse.Namespace) -> Iterator[Any]:
    """Quality against the number of clean samples that the server holds."""
    return sample_rows(options, study.without)


def adaptive(study: Study, _: Judged, options: argparse.Namespace) -> Iterator[Any]:
    """Attackers who know the detector, beside the same ones who do not."""
    for how, part in data.ADAPTIVE.items():
        folder = options.store / how.replace(" ", "-")
        data.play(part, folder, options.data, options.workers, data.NO_RIVALS)
        for name, tables in data.tables_by_data_set(folder, part).items():
            found = figures(tables, scored(study.without(name), tables))
            harm = np.concatenate([np.array(t.facts["harm"])[t.malicious] for t in tables])
            found["mean_harm"] = float(harm.mean())
            yield row(ADAPTIVE, name, "fl_shield", attackers=how, **found)


def known_trigger(_: Study, judged: Judged, options: argparse.Namespace) -> Iterator[Any]:
    """What asking about triggers alone could tell apart, if one knew them."""
    episodes = data.judged_in(options.store) / "episodes"
    for name, tables in track(judged.items(), "known triggers"):
        domain = load_domain(name, str(options.data))
        scores = known_trigger_scores(episodes, domain, RANGES[data.EVALUATION.kind], tables)
        yield row(KNOWN_TRIGGER, name, KNOWN_TRIGGER, **figures(tables, scores))


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


def ship(study: Study, rows: Sequence[Row]) -> None:
    """Write the package's detector, and the siblings that leave out a data set each.

    The figures of a card are those of detectors that have not seen what is judged.
    """
    own = [r for r in rows if r["statistic"] == "fl_shield"]
    main = {r["held_out"]: r for r in own if r["table"] == "data set"}
    shown = {name: {k: _short(r.get(k)) for k in FIGURES} for name, r in main.items()}
    kinds = sorted(
        (r for r in own if r["table"] in ("trigger", "architecture")), key=lambda r: r["auroc"]
    )
    study.learn_calibrated(*main)
    study.learn(*(unseen(name) for name in data.LEARNED), unseen())
    _save(study, SHIPPED, (), {
        "unseen_data_sets": shown,
        "weakest_on_unseen": {
            f"{r['table']} {r['held_out']}": _short(r["auroc"]) for r in kinds[:WEAKEST]
        },
        "known_failures": KNOWN_FAILURES,
    })  # fmt: skip
    for name, values in shown.items():
        _save(study, SIBLINGS / f"without-{name}", (name,), {"unseen_data_sets": {name: values}})


def _save(study: Study, folder: Path, held_out: tuple[str, ...], facts: dict[str, Any]) -> None:
    started = time.monotonic()
    detector = study.calibrated(*held_out)
    seen = [table for table in study.training if table.domain not in held_out]
    card = facts_of_training(seen, SETTINGS, held_out, FALSE_ALARMS, f"{COMMAND} SHIP=--ship")
    card |= {"calibration": asdict(detector.calibration), **facts}
    card[LEARNED_FROM] = study.learned_from(unseen(*held_out))
    card["seconds"] = round(time.monotonic() - started, 1)
    save_detector(folder, detector.networks, detector.spec, card)


PARTS: dict[str, Callable[[Study, Judged, argparse.Namespace], Iterator[Any]]] = {
    "data": unseen_data_sets,
    "oddities": odd_clients,
    "kinds": unseen_kinds,
    "modalities": modalities,
    "federations": federations,
    "descriptors": ablations,
    "algorithms": algorithms,
    "trigger": known_trigger,
    "graded": graded_policies,
    "samples": clean_samples,
    "adaptive": adaptive,
}
"""What is measured, one piece at a time."""

UNLEARNED = ("trigger",)
"""Parts without a detector: they hold as long as the evaluation stays what it is."""


def main() -> None:
    parser = data.parser_of(__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART",
                        help=f"parts to measure now: {', '.join(PARTS)}")  # fmt: skip
    parser.add_argument("--ship", action="store_true", help="write the detectors")
    options = data.options_of(parser)
    data.play_all(options.store, options.data, options.workers)
    training = data.training_tables(options.store)
    committed = {} if options.ship else COMMITTED
    study = Study(options.store / "detectors", training, options.workers, committed)
    judged = data.tables_by_data_set(data.judged_in(options.store), data.EVALUATION)
    judged_on = sorted(digest_of(t) for part in judged.values() for t in part)
    learned = digest(asdict(SETTINGS), sorted([*study.described.values(), *judged_on]))
    measured_on = dict.fromkeys(PARTS, learned) | dict.fromkeys(UNLEARNED, digest(judged_on))
    record = Record(training_facts(training, asdict(SETTINGS)), measured_on)
    rows = record.measured()
    if "data" not in {*rows, *options.only}:
        parser.error("federations or settings are new: the part `data` is measured first")
    for name in [part for part in PARTS if part in options.only]:
        if name not in rows:
            rows[name] = [*PARTS[name](study, judged, options)]
        record.write(rows, [part for part in PARTS if part not in rows])
    if options.ship:
        ship(study, [row for part in rows.values() for row in part])


if __name__ == "__main__":
    main()
