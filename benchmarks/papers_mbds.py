"""Tables I, II and III and Figure 5 of MBDS, one command each.

    python -m benchmarks.papers_mbds table1 --data ../shared/data
    python -m benchmarks.papers_mbds figure5 --data ../shared/data --paper

Prints Markdown. Without `--paper` it is a size that two cores finish in an hour: smaller models,
64 shadow models with a tenth of their features, and 4, 2 and 2 victims; with it, the paper's: 1,024
shadow models with a hundredth of their features, and 64, 32 and 32 victims. Victims are kept in the
store.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.papers import ROOT, Case
from benchmarks.papers_victims import ATTACKS, RECIPES, parts_of, task_of, victim
from fl_shield.scanning.mbds import SHADOW_TRAINING, Mbds
from fl_shield.scanning.protocol import Samples
from fl_shield.scanning.rates import Rates, rates

DATA = ("mnist", "cifar10")
VICTIMS = {
    False: {"jumbo": 4, "badnets": 2, "blended": 2},
    True: {"jumbo": 64, "badnets": 32, "blended": 32},
}
EXTRACTORS = {False: 64, True: 1024}
SHARE = {False: 0.1, True: 0.01}
JUDGED = 200


def table1(options: argparse.Namespace) -> Iterator[str]:
    """Benign accuracy and attack success rate of the shadow models."""
    yield "| data | shadow models | BA | ASR |\n|---|---|---|---|"
    for data in options.only_data:
        figures = fitted(options, data).figures
        yield (
            f"| {data} | {len(figures.benign_accuracy)} | {np.mean(figures.benign_accuracy):.2%} "
            f"| {np.mean(figures.attack_success):.2%} |"
        )


def table2(options: argparse.Namespace) -> Iterator[str]:
    """Benign accuracy and attack success rate of the victims."""
    yield "| data | attack | victims | BA | ASR |\n|---|---|---|---|---|"
    for data in options.only_data:
        for attack in ATTACKS[data]:
            found = [case.victim for case in cases(options, data, attack)]
            benign = np.mean([v.benign_accuracy for v in found])
            success = np.mean([v.attack_success for v in found])
            yield f"| {data} | {attack} | {len(found)} | {benign:.2%} | {success:.2%} |"


def table3(options: argparse.Namespace) -> Iterator[str]:
    """Accuracy, FAR, FRR and F2 on the victims, at even odds."""
    yield "| data | attack | accuracy | FAR | FRR | F2 |\n|---|---|---|---|---|---|"
    for data in options.only_data:
        mbds = fitted(options, data)
        for attack in ATTACKS[data]:
            found = [judged(mbds, case) for case in cases(options, data, attack)]
            yield f"| {data} | {attack} | {_means(found)} |"


def figure5(options: argparse.Namespace) -> Iterator[str]:
    """The figures of Table III, over all attacks on CIFAR-10, by the number of shadow models."""
    mbds = fitted(options, "cifar10")
    victims = [case for attack in ATTACKS["cifar10"] for case in cases(options, "cifar10", attack)]
    yield "| shadow models | accuracy | FAR | FRR | F2 |\n|---|---|---|---|---|"
    count = 1
    while count <= mbds.extractors:
        some = mbds.again(extractors=count)
        yield f"| {count} | {_means([judged(some, case) for case in victims])} |"
        count *= 2


def fitted(options: argparse.Namespace, data: str) -> Mbds:
    """Return MBDS of a data set, deployed on its first victim."""
    paper = options.paper
    mbds = Mbds(
        extractors=options.extractors or EXTRACTORS[paper],
        share=SHARE[paper],
        features=options.features,
        order=options.order,
        false_alarms=None,
    )
    recipe = RECIPES[data]
    held = next(cases(options, data, "jumbo")).held(None)
    architecture = recipe.paper if paper else recipe.model
    return mbds.fit(replace(held, architecture=architecture, training=SHADOW_TRAINING, seed=0))


def cases(options: argparse.Namespace, data: str, attack: str) -> Iterator[Case]:
    """Yield the victims of an attack."""
    task = task_of(data, str(options.data.absolute()))
    defender = parts_of(task)[1]
    store = options.store / "paper" if options.paper else options.store
    for number in range(options.victims or VICTIMS[options.paper][attack]):
        found = victim(task, attack, number, store, paper=options.paper)
        yield Case(task, attack, number, found, defender)


def judged(mbds: Mbds, case: Case) -> Rates:
    """Return the rates of MBDS on a victim."""
    inputs, truth = case.inputs(JUDGED)
    scanner = mbds.for_model(case.held(None))
    return rates(scanner.score(Samples(inputs)) > scanner.threshold, truth)


def _means(found: list[Rates]) -> str:
    values = [(r.accuracy, r.far, r.frr, r.f2) for r in found]
    return " | ".join(f"{mean:.2%}" for mean in np.mean(values, axis=0))


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[str]]] = {
    "table1": table1, "table2": table2, "table3": table3, "figure5": figure5
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--store", type=Path, default=ROOT / "runs" / "papers")
    parser.add_argument("--paper", action="store_true", help="the paper's size")
    parser.add_argument("--extractors", type=int, help="another number of shadow models")
    parser.add_argument("--victims", type=int, help="another number of victims of each attack")
    parser.add_argument("--features", default="feature_maps", help="feature_maps or grad_cam")
    parser.add_argument("--order", default="as_is", help="as_is or aligned")
    parser.add_argument("--only-data", nargs="+", choices=DATA, default=list(DATA))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for line in PARTS[options.part](options):
        print(line, flush=True)


if __name__ == "__main__":
    main()
