"""The model-level detectors on models that they have never seen, and the repairs.

    python -m benchmarks.model_scanning --data ../shared/data

Trains victims and shadows (`benchmarks/model_scanning_zoo.py`), lets every detector score all
victims of all tasks, repairs backdoored ones, and writes `docs/results/models.json` and `.md`.
Models and scores are kept in the store: it can be stopped and started again. With `--as-it-is`
nothing is trained any more: what is missing is left out of the tables, and named there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from benchmarks import model_scanning_zoo as zoo
from benchmarks.model_scanning_tables import REPAIRS, write_results
from fl_shield.data.task import model_inputs
from fl_shield.metrics.backdoor import accuracy, attack_success_rate
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.repair.fine_pruning import fine_prune
from fl_shield.repair.unlearning import unlearn_triggers
from fl_shield.scanning.models.df_tnd import ActivationSearch, DataFreeTnd
from fl_shield.scanning.models.dl_tnd import DataLimitedTnd, PerturbationSearch
from fl_shield.scanning.models.meta_shield import MetaShieldModels
from fl_shield.scanning.models.mntd import Answers, MetaClassifierTraining, Mntd
from fl_shield.scanning.models.neural_cleanse import NeuralCleanse, TriggerSearch
from fl_shield.scanning.models.shadows import Shadow
from fl_shield.scanning.protocol import Held, Scores
from fl_shield.training.local import LocalTraining

CALIBRATION = 20
"""The last clean shadows: nothing is learned from them, thresholds are."""

EPOCHS = 10
"""Passes over the shadows, as in the authors' program."""

SOURCE = {"mnist": "mnist", "cifar10": "cifar10", "grey_glyphs": "mnist"}
"""The task whose shadows MNTD learns from: the letters are a task that it never saw."""

REPAIRED = 8
"""Backdoored victims of each kind that are repaired: the first ones."""

FINE_TUNING = LocalTraining(optimiser="adam", learning_rate=3e-3, epochs=20, batch_size=16)


class Scanner(Protocol):
    """What is needed of a scanner here: it is fitted already."""

    def score(self, judged: Sequence[nn.Module]) -> Scores:
        """Return `(models,)` scores."""
        ...


class Study:
    """One task: its models, and the scores that they were given."""

    def __init__(self, name: str, data: Path, store: Path, workers: int = 1) -> None:
        self.name, self.store, self.workers = name, store, workers
        self.holdings = zoo.holdings(name, data)
        self._data = data

    def held(self) -> Held:
        """Return what the defender holds: 4 % of the training data."""
        split, spec = self.holdings.defender, self.holdings.task.spec
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
        split = split.take(order)
        clean = ProbeSet(model_inputs(split.inputs), split.labels, spec.num_classes)
        return Held(clean=clean, spec=spec)

    def files(self, role: str, kind: str) -> list[Path]:
        """Return the weights that are there, by number."""
        return sorted((self.store / self.name / role).glob(f"{kind}-*.safetensors"))

    def load(self, file: Path) -> nn.Module:
        """Return a model."""
        return zoo.load_model(self.name, file, self.holdings.task.spec)

    def shadows(self) -> tuple[list[Shadow], list[Shadow]]:
        """Return the shadows to learn from, and those to calibrate on."""
        clean = [Shadow(self.load(file)) for file in self.files("shadow", zoo.CLEAN)]
        bad = [
            Shadow(
                self.load(file),
                zoo.attack_of(self.name, "shadow", "jumbo", index, self.holdings.task),
            )
            for index, file in enumerate(self.files("shadow", "jumbo"))
        ]
        return [*clean[:-CALIBRATION], *bad], clean[-CALIBRATION:]

    def judged(self) -> list[Path]:
        """Return the models to score: victims, and the clean shadows to calibrate on."""
        victims = [f for kind in zoo.KINDS for f in self.files("victim", kind)]
        return [*victims, *self.files("shadow", zoo.CLEAN)[-CALIBRATION:]]

    def scores(self, method: str, build: Callable[[], Scanner]) -> dict[str, Any]:
        """Return scores and seconds of a method, `role/kind-index` to both; kept in the store."""
        file = self.store / "scores" / self.name / f"{method}.json"
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        pending = [m for m in self.judged() if f"{m.parent.name}/{m.stem}" not in found]
        if not pending:
            return found
        scanner = build()
        file.parent.mkdir(parents=True, exist_ok=True)

        def score(model: Path) -> tuple[str, float, float]:
            started = time.process_time()
            value = float(scanner.score([self.load(model)])[0])
            return f"{model.parent.name}/{model.stem}", value, time.process_time() - started

        for key, value, seconds in zoo.in_order_of_arrival(score, pending, self.workers):
            found[key] = [value, round(seconds, 3)]
            file.write_text(json.dumps(found), encoding="utf-8")
        return found

    def repairs(self) -> list[dict[str, Any]]:
        """Return what the repairs do to backdoored victims; kept in the store."""
        file = self.store / "scores" / self.name / "repairs.json"
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        jobs = [
            (model, kind, index, method)
            for kind in zoo.KINDS[1:]
            for index, model in enumerate(self.files("victim", kind)[:REPAIRED])
            for method in REPAIRS
            if f"{kind}-{index:04d}/{method}" not in found
        ]
        file.parent.mkdir(parents=True, exist_ok=True)

        def repair(job: tuple[Path, str, int, str]) -> dict[str, Any]:
            return self._repair(self.load(job[0]), *job[1:])

        for row in zoo.in_order_of_arrival(repair, jobs, self.workers):
            found[f"{row['kind']}-{row['index']:04d}/{row['method']}"] = row
            file.write_text(json.dumps(found), encoding="utf-8")
        return list(found.values())

    def _repair(self, model: nn.Module, kind: str, index: int, method: str) -> dict[str, Any]:
        task, clean = self.holdings.task, self.holdings.defender
        attack = zoo.attack_of(self.name, "victim", kind, index, task)
        assert attack is not None
        row: dict[str, Any] = {"kind": kind, "index": index, "method": method}
        if method == "fine_pruning":
            pruned = fine_prune(model, clean, fine_tuning=FINE_TUNING)
            repaired, row["channels"] = pruned.model, len(pruned.channels)
        else:
            shield = MetaShieldModels().fit(self.held()) if method == "unlearning_shield" else None
            targets = None if shield is None else shield.suspicious_classes(model)
            unlearnt = unlearn_triggers(
                model, clean, targets=targets, search=SEARCH, training=FINE_TUNING
            )
            repaired, row["targets"] = unlearnt.model, list(unlearnt.targets)
            row["found"] = attack.target_class in unlearnt.targets
        for name, judged in (("before", model), ("after", repaired)):
            row[f"asr_{name}"] = attack_success_rate(judged, task.test, attack)
            row[f"ma_{name}"] = accuracy(judged, task.test)
        return row


SEARCH = TriggerSearch(steps=100, samples=16)
"""Half the steps and images of the defaults: there are hundreds of models."""


def methods(study: Study, source: Study) -> dict[str, Callable[[], Scanner]]:
    """Return the scanners by name; MNTD learns from the shadows of `source`."""

    def mntd(answers: Answers, robust: bool = False) -> Scanner:
        training = MetaClassifierTraining(epochs=EPOCHS, answers=answers, robust=robust)
        scanner = Mntd(calibration=CALIBRATION, training=training)
        return scanner.fit_on(source.held(), *source.shadows())

    held = study.held()
    return {
        "mntd": lambda: mntd("log_probabilities"),
        "mntd_robust": lambda: mntd("log_probabilities", robust=True),
        "mntd_logits": lambda: mntd("logits"),
        "mntd_probabilities": lambda: mntd("probabilities"),
        "neural_cleanse": lambda: NeuralCleanse(SEARCH).fit(held),
        "df_tnd": lambda: DataFreeTnd(ActivationSearch()).fit(held),
        "meta_shield": lambda: MetaShieldModels().fit(held),
        "dl_tnd": lambda: DataLimitedTnd(PerturbationSearch(steps=40, searches=2)).fit(held),
    }


def measure(
    name: str, data: Path, store: Path, workers: int, only: Sequence[str] | None = None
) -> None:
    """Score and repair the models of a task."""
    study = Study(name, data, store, workers)
    source = study if SOURCE[name] == name else Study(SOURCE[name], data, store)
    for method, build in methods(study, source).items():
        is_learned = method.startswith("mntd")
        if (only is None or method in only) and not (
            is_learned and len(source.files("shadow", "jumbo")) < CALIBRATION
        ):
            study.scores(method, build)
    if only is None or "repairs" in only:
        study.repairs()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--store", type=Path, default=zoo.ROOT / "runs" / "models")
    parser.add_argument("--task", choices=zoo.ZOOS, nargs="+", default=list(zoo.ZOOS))
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="these, and no tables")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--as-it-is", action="store_true", help="train nothing any more")
    parser.add_argument("--tables", action="store_true", help="only write the tables anew")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, store = options.data.absolute(), options.store.absolute()
    if not (options.as_it_is or options.tables):
        zoo.make_all(options.task, data, store, options.workers)
    if not options.tables:
        for name in options.task:
            measure(name, data, store, options.workers, options.only)
    if options.only is None:
        write_results(store)


if __name__ == "__main__":
    main()
