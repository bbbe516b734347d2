"""The detectors of the papers on the same victims: FAR, FRR and F2 of each.

    python -m benchmarks.papers --data ../shared/data [--victims 4 --fresh 2 --tasks 8]

Trains victims (`benchmarks/papers_victims.py`), plays the shadow tasks that MetaShield is learned
from (`benchmarks/papers_shadow.py`), judges clean and triggered inputs with every scanner, and
writes `docs/results/papers.json` and a page of tables beside it. Models, detectors and rows are
kept in the store: it can be stopped and started again. Nothing of a victim's data set was seen by
the MetaShield that judges it: not its samples, its models or its thresholds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.papers_shadow import Detectors, play_tasks, tables_of
from benchmarks.papers_tables import write_results
from benchmarks.papers_victims import (
    ATTACKS,
    LEAST_SUCCESS,
    RECIPES,
    Victim,
    parts_of,
    task_of,
    victim,
)
from fl_shield.atomic import draft_of
from fl_shield.data.sampling import stratified_indices
from fl_shield.data.task import Split, Task, model_inputs
from fl_shield.metrics.detection import auroc
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.scanning.contamination import contaminate, words_of
from fl_shield.scanning.mbds import Mbds
from fl_shield.scanning.meta_shield import SHIPPED
from fl_shield.scanning.protocol import Held, Samples, SampleScanner
from fl_shield.scanning.rates import rates
from fl_shield.scanning.registry import build_scanner
from fl_shield.scanning.sample_detector import save_sample_detector
from fl_shield.scanning.shadow_tasks import judged_inputs, took_effect

ROOT = Path(__file__).resolve().parent.parent

STRIP_SAMPLES = 64
"""Clean samples that STRIP holds: it calibrates on them, and 16 are too few for 5 %."""

FALSE_ALARMS = 0.05
EXTRACTORS = {"mnist": 64, "cifar10": 32}
"""Shadow models of MBDS; 1,024 each in the paper."""

FEATURE_SHARE = 0.5
"""Share of a shadow model's features that MBDS keeps; 0.01 in the paper, of 16 times the models."""

META_SAMPLES = 16
"""Clean samples that MetaShield holds; with 35 or more its threshold would be its own."""

DRAWS = 4
"""Times that they are drawn for each victim: false alarms hang on which they are, and a figure is
the mean."""

FEWER_AND_MORE = (4, 8, 32, 64)
"""Others, on the first victim of each attack: how fast it adapts (proposal, section 2.1.3)."""


@dataclass(frozen=True)
class Case:
    """A victim with what the defender holds and what is judged.

    Attributes:
        task: The data set.
        attack: Name of the attack.
        number: Number of the victim.
        victim: The victim.
        defender: All samples that the defender holds.
        paper: Whether the victim is of the paper's size.
        draw: Number of the draw of a handful of samples from the defender's.
    """

    task: Task
    attack: str
    number: int
    victim: Victim
    defender: Split
    paper: bool = False
    draw: int = 0

    def held(self, count: int | None) -> Held:
        """Return what the defender holds: `count` samples evenly over classes, None for all."""
        part, seed = self.defender, self.number + 1000 * self.draw
        if count is not None:
            part = part.take(stratified_indices(part.labels, count, seed))
        recipe = RECIPES[self.task.name]
        return Held(
            clean=ProbeSet(model_inputs(part.inputs), part.labels, self.task.spec.num_classes),
            spec=self.task.spec,
            model=self.victim.model,
            architecture=recipe.paper if self.paper else recipe.model,
            training=recipe.training,
            word_tokens=words_of(self.task),
            seed=seed,
        )

    def inputs(self, count: int) -> tuple[Tensor, list[bool], list[bool]]:
        """Return `count` clean and as many triggered test inputs.

        With them, which are triggered, and which of all are clean or obey their trigger.
        """
        setting = self.victim.setting
        clean, bad, before = judged_inputs(self.task, setting, count, 1000 + self.number)
        obeyed = took_effect(self.victim.model, bad, before, setting.target_class)
        return (
            torch.cat([clean, bad]),
            [False] * len(clean) + [True] * len(bad),
            [True] * len(clean) + obeyed.tolist(),
        )

    def training_set(self) -> tuple[Samples, list[bool]]:
        """Return the set that the victim was trained on, and which samples are poisoned."""
        attacker, _ = parts_of(self.task)
        generator = torch.Generator().manual_seed(self.number)
        found = contaminate(attacker, self.victim.setting, generator)
        return Samples(found.split.inputs, found.split.labels), found.poisoned.tolist()


Method = Callable[[Case, Detectors], tuple[SampleScanner, Held]]
"""Returns a scanner and what its defender holds, ready to be fitted."""


def _meta_shield(count: int) -> Method:
    def build(case: Case, detectors: Detectors) -> tuple[SampleScanner, Held]:
        folder = detectors.folder([case.task.name])
        scanner = build_scanner("meta_shield", weights=folder, false_alarms=FALSE_ALARMS)
        return scanner, case.held(count)

    return build


def _plain(name: str, count: int | None) -> Method:
    def build(case: Case, _: Detectors) -> tuple[SampleScanner, Held]:
        return build_scanner(name, false_alarms=FALSE_ALARMS), case.held(count)

    return build


OWN = f"meta_shield, {META_SAMPLES} clean"
"""MetaShield as it is compared with the others."""

METHODS: dict[str, Method] = {
    OWN: _meta_shield(META_SAMPLES),
    "strip": _plain("strip", STRIP_SAMPLES),
    "activation_clustering": _plain("activation_clustering", None),
    "spectral_signatures": _plain("spectral_signatures", None),
}
"""Methods that need no shadow models of the victim's own data set."""

ADAPTED: dict[str, Method] = {f"meta_shield, {n} clean": _meta_shield(n) for n in FEWER_AND_MORE}

MBDS: dict[str, dict[str, Any]] = {
    "mbds": {},
    "mbds, black box": {"reads": "shadow"},
    "mbds, grad-cam": {"features": "grad_cam"},
    "mbds, evidence": {"features": "evidence", "share": 1.0, "false_alarms": FALSE_ALARMS},
}
"""Those that do, for images; the first as in the paper, others see inputs in other ways."""

OURS = (OWN, "mbds, evidence")
"""Methods whose form was ours to choose."""

EVERY = [*METHODS, *ADAPTED, *MBDS]

FIGURES = ("far", "frr", "f2", "f2_obeyed", "accuracy", "auroc")
"""What a row has measured: means over the draws."""


class Study:
    """Measures rows, each once.

    Args:
        options: The command's.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.store = options, options.store
        self.detectors = Detectors(self.store, tables_of(self.store, options.tasks))
        self._extractors: dict[tuple[str, str], Mbds] = {}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield all rows, measuring those that are not there yet."""
        yield from self._of_victims(range(self.options.victims), self.options.methods)

    def fresh_rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of our own methods on further victims, which nothing was chosen on."""
        first = self.options.victims
        for row in self._of_victims(range(first, first + self.options.fresh), OURS):
            if row["method"] in OURS:
                yield row

    def _of_victims(
        self, numbers: Iterable[int], methods: Sequence[str]
    ) -> Iterator[dict[str, Any]]:
        for number in numbers:
            for data in self.options.only_data:
                for attack in ATTACKS[data]:
                    yield from self._of_victim(data, attack, number, methods)

    def _of_victim(
        self, data: str, attack: str, number: int, methods: Sequence[str]
    ) -> Iterator[dict[str, Any]]:
        file = self.store / "rows" / f"{data}-{attack}-{number:03d}.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        every = [*METHODS, *(ADAPTED if number == 0 else ()), *self._mbds_methods(data)]
        wanted = [m for m in every if m in methods and m not in known]
        if wanted:
            task = task_of(data, str(self.options.data))
            found = victim(task, attack, number, self.store, paper=self.options.paper)
            case = Case(task, attack, number, found, parts_of(task)[1], self.options.paper)
            for method in wanted:
                known[method] = self._measure(case, method)
                _write(file, known)
        yield from known.values()

    def _mbds_methods(self, data: str) -> list[str]:
        return [*MBDS] if data in ("mnist", "cifar10") else []

    def _measure(self, case: Case, method: str) -> dict[str, Any]:
        started = time.monotonic()
        draws = DRAWS if method in (OWN, *ADAPTED) else 1
        judged = [self._judge(replace(case, draw=draw), method) for draw in range(draws)]
        return {
            "data": case.task.name,
            "attack": case.attack,
            "victim": case.number,
            "method": method,
            "draws": draws,
            "trigger": str(case.victim.setting.trigger),
            "benign_accuracy": case.victim.benign_accuracy,
            "attack_success": case.victim.attack_success,
            "redrawn": case.victim.redrawn,
            **judged[0],
            **{key: float(np.mean([one[key] for one in judged])) for key in FIGURES},
            "seconds": round((time.monotonic() - started) / draws, 2),
        }

    def _judge(self, case: Case, method: str) -> dict[str, Any]:
        scanner: SampleScanner
        builders = METHODS | ADAPTED
        if method in builders:
            scanner, held = builders[method](case, self.detectors)
            scanner.fit(held)
        else:
            held = case.held(None)
            scanner = self._mbds(case, method).for_model(held)
        if scanner.level == "data":
            samples, truth = case.training_set()
            counted = [True] * len(truth)
        else:
            inputs, truth, counted = case.inputs(self.options.judged)
            samples = Samples(inputs)
        scores = scanner.score(samples)
        found = rates(scores > scanner.threshold, truth)
        obeyed = rates((scores > scanner.threshold)[counted], np.array(truth)[counted].tolist())
        return {
            "level": scanner.level,
            "clean_samples": len(held.clean),
            "far": found.far,
            "frr": found.frr,
            "f2": found.f2,
            "f2_obeyed": obeyed.f2,
            "accuracy": found.accuracy,
            "auroc": auroc(scores.tolist(), truth),
        }

    def _mbds(self, case: Case, method: str) -> Mbds:
        """Return MBDS trained on the defender's samples; one for all victims of a data set."""
        data = case.task.name
        if (data, method) not in self._extractors:
            settings = MBDS[method]
            if settings.keys() == {"reads"}:  # the same shadow models and meta-classifier
                mbds = self._mbds(case, "mbds").again(**settings)
            else:
                count = self.options.extractors or EXTRACTORS[data]
                mbds = shadow_trained(case, self.store, count, **settings)
            self._extractors[data, method] = mbds
            if method == "mbds":
                figures = {
                    "count": mbds.extractors,
                    "benign_accuracy": float(np.mean(mbds.figures.benign_accuracy)),
                    "attack_success": float(np.mean(mbds.figures.attack_success)),
                }
                _write(self.store / "extractors" / f"{data}.json", figures)
        return self._extractors[data, method]


def shadow_trained(case: Case, store: Path, extractors: int, **settings: Any) -> Mbds:
    """Return MBDS trained on the defender's samples, at even odds unless told; models are kept."""
    mbds = Mbds(
        extractors=extractors, store=store / "mbds",
        **{"share": FEATURE_SHARE, "false_alarms": None} | settings,
    )  # fmt: skip
    return mbds.fit(replace(case.held(None), seed=0, training=None))


def _write(file: Path, known: dict[str, Any]) -> None:
    with draft_of(file) as draft:
        draft.write_text(json.dumps(known, indent=1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--store", type=Path, default=ROOT / "runs" / "papers")
    parser.add_argument("--victims", type=int, default=4, help="victims of each attack")
    parser.add_argument(
        "--fresh", type=int, default=2, help="further victims, for our methods in their final form"
    )
    parser.add_argument("--tasks", type=int, default=8, help="shadow tasks of each data set")
    parser.add_argument(
        "--as-is", action="store_true", help="make do with the shadow tasks that are there"
    )
    parser.add_argument(
        "--extractors",
        type=int,
        help="shadow models of MBDS, 1024 in the paper",
    )
    parser.add_argument("--judged", type=int, default=100, help="clean inputs, and triggered ones")
    parser.add_argument("--paper", action="store_true", help="models of the paper's size")
    parser.add_argument("--methods", nargs="+", choices=EVERY, default=EVERY, metavar="NAME")
    parser.add_argument("--only-data", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--ship", action="store_true", help="write the detector into the package")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.store = options.store.absolute()
    if not options.as_is:
        play_tasks(options.store, str(options.data.absolute()), options.tasks)
    study = Study(options)
    rows = [*study.rows()]
    fresh = [*study.fresh_rows()]
    facts = {
        "victims": options.victims,
        "judged": options.judged,
        "draws": DRAWS,
        "feature_share": FEATURE_SHARE,
        "least": LEAST_SUCCESS,
        "adapted": list(ADAPTED),
        "paper": options.paper,
        "shadow_models": study.detectors.shadow_models(),
        "extractor_figures": {
            file.stem: json.loads(file.read_text(encoding="utf-8"))
            for file in sorted((options.store / "extractors").glob("*.json"))
        },
    }
    write_results(rows, fresh, facts)
    if options.ship:
        ship(study, rows)


def ship(study: Study, rows: list[dict[str, Any]]) -> None:
    """Write the detector of all data sets into the package, with the figures of its siblings.

    The figures are those of detectors trained alike, but without the data set that is judged.
    """
    own = [r for r in rows if r["method"] == OWN]
    figures = {
        data: {
            key: round(float(np.mean([r[key] for r in own if r["data"] == data])), 4)
            for key in ("far", "frr", "f2")
        }
        for data in sorted({r["data"] for r in own})
    }
    detector = study.detectors.whole()
    card = detector.card | {
        "unseen_data_sets": figures, "command": "make results-papers SHIP=--ship"
    }  # fmt: skip
    save_sample_detector(SHIPPED, replace(detector, card=card))


if __name__ == "__main__":
    main()
