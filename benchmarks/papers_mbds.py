"""Tables I, II and III and Figure 5 of MBDS, and its study of features; one command each.

    python -m benchmarks.papers_mbds table1 --data ../shared/data
    python -m benchmarks.papers_mbds figure5 --data ../shared/data --paper
    python -m benchmarks.papers_mbds all --data ../shared/data

Prints Markdown; `figure5` also draws `docs/results/papers.figure5.png`, and `all` also writes
`docs/results/papers.mbds.md`. Without `--paper` it has the size of `make results-papers`, whose
store it shares, and two cores finish in an hour; with it, the paper's: 1,024 shadow models with a
hundredth of their features, and 64, 32 and 32 victims.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.papers import EXTRACTORS, MBDS, ROOT, Case, shadow_trained
from benchmarks.papers_tables import RESULTS
from benchmarks.papers_victims import ATTACKS, parts_of, task_of, victim
from fl_shield.scanning.feature_maps import Features
from fl_shield.scanning.mbds import Mbds
from fl_shield.scanning.protocol import Samples
from fl_shield.scanning.rates import Rates, rates

DATA = ("mnist", "cifar10")
VICTIMS = {
    False: {"jumbo": 4, "badnets": 4, "blended": 4},
    True: {"jumbo": 64, "badnets": 32, "blended": 32},
}
PAPER_EXTRACTORS, PAPER_SHARE = 1024, 0.01
JUDGED = 100
FIGURE = RESULTS / "papers.figure5.png"
RATES_SHOWN = ("accuracy", "far", "frr", "f2")


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
    counts = [2**power for power in range(mbds.extractors.bit_length())]
    curves = []
    for count in counts:
        some = mbds.again(extractors=count)
        found = [judged(some, case) for case in victims]
        curves.append([np.mean([getattr(one, key) for one in found]) for key in RATES_SHOWN])
        yield f"| {count} | {_means(found)} |"
    draw(counts, np.array(curves))
    yield f"\n![The same as curves]({FIGURE.name})"


def draw(counts: Sequence[int], curves: NDArray[np.float64]) -> None:
    """Draw the four panels of Figure 5, of `(counts, 4)` rates, into `FIGURE`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(12, 3), sharey=True, layout="constrained")
    for axis, title, values in zip(axes, ("accuracy", "FAR", "FRR", "F2"), curves.T, strict=True):
        axis.plot(counts, 100.0 * values, marker="o", color="#0072B2")
        axis.set_xscale("log", base=2)
        axis.set_title(title, loc="left", fontsize=11)
        axis.set_xlabel("shadow models")
        axis.set_ylim(0, 100)
        axis.grid(color="#dddddd")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("%, CIFAR-10")
    figure.savefig(FIGURE, dpi=110)
    plt.close(figure)


def features(options: argparse.Namespace) -> Iterator[str]:
    """Table III with feature maps, Grad-CAM (V-E), and evidence maps, threshold for 5 %."""
    yield "| features | data | attack | accuracy | FAR | FRR | F2 |\n|---|---|---|---|---|---|---|"
    for kind in get_args(Features):
        options.features = kind
        for line in [*table3(options)][1:]:
            yield f"| {kind} {line}"


def fitted(options: argparse.Namespace, data: str) -> Mbds:
    """Return MBDS of a data set, deployed on its first victim; one for all parts."""
    count = options.extractors or (PAPER_EXTRACTORS if options.paper else EXTRACTORS[data])
    settings: dict[str, Any] = {"features": options.features}
    if options.features == "evidence":
        settings |= MBDS["mbds, evidence"]
    if options.paper:
        settings["share"] = PAPER_SHARE
    key = (data, count, options.features)
    if key not in _known:
        case = next(cases(options, data, "jumbo"))
        _known[key] = shadow_trained(case, _store(options), count, **settings)
    return _known[key]


_known: dict[tuple[object, ...], Mbds] = {}


def _store(options: argparse.Namespace) -> Path:
    store: Path = options.store / "paper" if options.paper else options.store
    return store


def cases(options: argparse.Namespace, data: str, attack: str) -> Iterator[Case]:
    """Yield the victims of an attack."""
    task = task_of(data, str(options.data.absolute()))
    defender = parts_of(task)[1]
    for number in range(options.victims or VICTIMS[options.paper][attack]):
        found = victim(task, attack, number, _store(options), paper=options.paper)
        yield Case(task, attack, number, found, defender, options.paper)


def judged(mbds: Mbds, case: Case) -> Rates:
    """Return the rates of MBDS on a victim."""
    inputs, truth, _ = case.inputs(JUDGED)
    scanner = mbds.for_model(case.held(None))
    return rates(scanner.score(Samples(inputs)) > scanner.threshold, truth)


def _means(found: list[Rates]) -> str:
    values = [(r.accuracy, r.far, r.frr, r.f2) for r in found]
    return " | ".join(f"{mean:.2%}" for mean in np.mean(values, axis=0))


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[str]]] = {
    "table1": table1, "table2": table2, "table3": table3, "figure5": figure5, "features": features
}  # fmt: skip


def everything(options: argparse.Namespace) -> Iterator[str]:
    """All parts, under a headline each."""
    size = "" if not options.paper else " --paper"
    yield (
        "# MBDS: its tables and figure\n\nWritten by `python -m benchmarks.papers_mbds all"
        f" --data ../shared/data{size}`."
    )
    for name, part in PARTS.items():
        yield f"\n## {name.capitalize()}\n\n{part.__doc__}\n"
        yield from part(options)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=[*PARTS, "all"])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--store", type=Path, default=ROOT / "runs" / "papers")
    parser.add_argument("--paper", action="store_true", help="the paper's size")
    parser.add_argument("--extractors", type=int, help="another number of shadow models")
    parser.add_argument("--victims", type=int, help="another number of victims of each attack")
    parser.add_argument(
        "--features", default="feature_maps", help="feature_maps, grad_cam or evidence"
    )
    parser.add_argument("--only-data", nargs="+", choices=DATA, default=list(DATA))
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for line in PARTS.get(options.part, everything)(options):
        print(line, flush=True)
        lines.append(line)
    if options.part == "all":
        (RESULTS / "papers.mbds.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
