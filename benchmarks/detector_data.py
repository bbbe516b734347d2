"""The federations behind the detector and its figures: seeds, and the commands that play them.

Nothing of the evaluation is seen in training: its federations have seeds of their own (from one
million on), and the detector that is judged on a data set was trained on the others.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from benchmarks.described_rounds import unpack
from fl_shield.shadow.describe import CLEAN_SAMPLES
from fl_shield.shadow.recipe import DETECTOR_AWARE
from fl_shield.shadow.store import domain_of, run_name
from fl_shield.shadow.table import EpisodeTable, read_tables
from fl_shield.simulations.shadow import EVALUATION_SEED, tables_folder

ROOT = Path(__file__).resolve().parent.parent

JUDGED = ("mnist", "cifar10", "ag_news", "sst2", "digits")
"""Data sets of the evaluation."""

LEARNED = (
    "ag_news", "cifar10", "digits", "docstrings", "glyphs", "manuals", "mnist", "photos", "sst2",
)  # fmt: skip
"""Data sets that detectors are learned from."""

LANGUAGE = ("ag_news", "docstrings", "manuals", "sst2")
"""Those of texts."""

IMAGES = tuple(name for name in LEARNED if name not in LANGUAGE)
"""Those of images."""

PAIRS = {
    "ag_news_pair": "ag_news", "docstrings_pair": "docstrings",
    "ag_news_other_pair": "ag_news", "docstrings_other_pair": "docstrings",
    "cifar10_pair": "cifar10", "mnist_pair": "mnist",
}  # fmt: skip
"""Domains of two classes of a data set, and the data set as which they count."""


@dataclass(frozen=True)
class Part:
    """Federations of one kind.

    Attributes:
        kind: Kind of `fl-shield shadow`.
        first: Number of the first one, by data set.
        runs: Federations of each data set.
        changes: What to overrule of the kind's ranges.
    """

    kind: str
    first: Mapping[str, int]
    runs: int
    changes: tuple[str, ...] = ()

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of the federations."""
        offset = EVALUATION_SEED if self.kind == "evaluation" else 0
        return frozenset(
            run_name(domain, first + offset + index)
            for domain, first in self.first.items()
            for index in range(self.runs)
        )

    def has(self, table: EpisodeTable) -> bool:
        """Return whether a round belongs to one of these federations."""
        return table.run in self.names


_ORDER = ("digits", "mnist", "cifar10", "glyphs", "sst2", "ag_news", "docstrings", "photos")


def _apart(thousands: int, order: Sequence[str] = _ORDER) -> dict[str, int]:
    return {name: 1000 * (thousands + index) for index, name in enumerate(order, 1)}


_FIRST = tuple(name for name in LEARNED if name != "manuals")

_HARD = ("ag_news_pair", "docstrings_pair")
"""Pairs of classes of texts that are hard to tell apart."""

_EASY = ("ag_news_other_pair", "docstrings_other_pair")

_OF_IMAGES = ("cifar10_pair", "mnist_pair")

_WARMED = ("ranges.stages=[0.12,0.25]", "ranges.warm_rounds=12", "ranges.alpha=[0.3,3.0]")
"""A model that its own clients have brought to where it is: honest updates pull apart there, each
to what its client has most of."""

_SHORT = "ranges.rounds=2"
"""What is learned follows the number of federations; rounds of one are much alike."""

_SKEWED = (
    "ranges.stages=[0.25,0.5]", "ranges.warm_rounds=6", "ranges.alpha=[0.3,2.0]",
    "ranges.clean_share=0.25", _SHORT,
)  # fmt: skip
"""The same as `_WARMED` for less, and more often without attackers."""

_HELD_BACK = (
    "ranges.warm_rounds=8", "ranges.held_back=[0.1,0.4]", "ranges.alpha=[0.3,2.0]",
    "ranges.stages=[0.25,0.5,1.0]", "ranges.clean_share=0.35", _SHORT,
)  # fmt: skip
"""A shield that is wrong about some: what only they know is missing from the model, all who know
something of it bring it back together, and look like accomplices. Learned from rounds in which
everybody was averaged in, a detector is the more certain of them the longer it is wrong."""

_ONE_CLASS = (
    "ranges.oddities=[single_class]", "ranges.epochs=[1,4]", "ranges.stages=[0.25,0.5,1.0]", _SHORT,
)  # fmt: skip

MANY_OF_ONE_CLASS = Part(
    "working", _apart(280, (*LEARNED, *_HARD, *_OF_IMAGES)), 8,
    (*_ONE_CLASS, "ranges.oddity=0.6", "ranges.clean_share=0.4", "ranges.alpha=[0.2,10.0]"),
)  # fmt: skip
"""Federations in three fifths of which more than half of the honest clients have samples of one
class only, as where everybody writes their own digit."""

ONE_CLASS = (
    Part(
        "working", _apart(260, (*LEARNED, *_HARD, *_OF_IMAGES)), 10,
        (*_ONE_CLASS, "ranges.oddity=0.25", "ranges.clean_share=0.3", "ranges.alpha=[0.2,5.0]"),
    ),
    MANY_OF_ONE_CLASS,
)  # fmt: skip
"""These, and others with fewer such clients. No oddity is taken for an attack more often."""

TRAINING = (
    Part("training", dict.fromkeys(_FIRST, 5), 16),
    Part("potent", _apart(10), 6),
    Part("potent", _apart(20, _ORDER[:4]), 3, ("ranges.oddity=0.4",)),
    Part("working", dict.fromkeys((*LEARNED, *_HARD), 31000), 10),
    Part("settled", dict.fromkeys((*LANGUAGE, *_HARD), 41000), 10),
    Part(
        "settled", dict.fromkeys((*LANGUAGE, *_HARD), 61000), 8,
        ("ranges.wrappers=[none]", "ranges.alpha=[0.3,1.0]"),
    ),
    Part("working", _apart(70, (*LANGUAGE, *_HARD)), 6, _WARMED),
    Part("working", _apart(80, IMAGES), 3, _WARMED),
    Part("potent", _apart(100, (*LEARNED, *_HARD)), 24, (_SHORT, "ranges.samples=[60,300]")),
    Part("working", _apart(120, (*LEARNED, *_HARD)), 21, (_SHORT,)),
    Part("working", _apart(140, (*LANGUAGE, *_HARD, *_EASY)), 12, _SKEWED),
    Part("working", _apart(160, (*IMAGES, *_OF_IMAGES)), 4, _SKEWED),
    Part("working", _apart(180, (*_EASY, *_OF_IMAGES)), 18, (_SHORT,)),
    Part("working", {name: _apart(200, LEARNED)[name] for name in IMAGES}, 14, _HELD_BACK),
    Part("working", _apart(220, (*LANGUAGE, *_HARD)), 6, _HELD_BACK),
    *ONE_CLASS,
)  # fmt: skip
"""What detectors are learned from: federations of all sorts, half of them such in which most
backdoors work, as those teach what one looks like."""

EVALUATION = Part("evaluation", {name: 100 + 100 * i for i, name in enumerate(JUDGED)}, 18)
"""What detectors are judged on."""

ADAPTIVE = {
    how: Part(
        "evaluation", {name: 150 + 100 * i for i, name in enumerate(JUDGED)}, 4,
        (f"ranges.wrappers=[{wrapper}]", "ranges.clean_share=0"),
    )
    for how, wrapper in (("data poisoning only", "none"), ("detector aware", DETECTOR_AWARE))
}  # fmt: skip
"""The same federations twice: attackers who poison their data and nothing else, and such who know
the shield and also train to answer its probes as an honest client would."""

NOT_MADE = (
    "*@1/*", "*@4/*", "*@10/*",
    "*/jumbo", "*/inverted", "*/phrases", "*@0.25/searched", "*@0.25/patches",
)  # fmt: skip
"""Descriptors that no detector here reads: updates are not followed further than clients went, and
candidate triggers are searched for at the clients' own weights: squares for images, phrases for
texts. Others cost most of all passes and were worth nothing beside these."""

KEEP = "keep_weights=true"
"""Setting of federations that are described more than once."""

NO_RIVALS = "rivals=false"
"""Setting of federations that only the detector judges."""


PACKED: dict[str, Sequence[Part]] = {"training": TRAINING, "evaluation": (EVALUATION,)}
"""Federations whose described rounds are committed."""


def packed(kind: str) -> Path:
    """Return the file of committed rounds of one of `PACKED`."""
    return Path(__file__).parent / "rounds" / f"{kind}.npz"


def play_all(store: Path, data_root: Path, workers: int) -> None:
    """Play and describe all federations; what is there, or committed, is kept."""
    for kind, parts in PACKED.items():
        if packed(kind).is_file():
            unpack(packed(kind), tables_folder(store / kind, CLEAN_SAMPLES))
        for part in parts:
            settings = [KEEP] if part is EVALUATION else []
            play(part, store / kind, data_root, workers, *settings)


def judged_in(store: Path) -> Path:
    """Return the folder of the federations that detectors are judged on."""
    return store / "evaluation"


def training_tables(store: Path) -> list[EpisodeTable]:
    """Return the rounds that detectors are learned from."""
    tables = tables_of(store / "training", TRAINING)
    return [replace(table, domain=PAIRS.get(table.domain, table.domain)) for table in tables]


def drawn_as(table: EpisodeTable) -> str:
    """Return the data set as which a round is drawn in training, each as often as any other.

    A pair of classes is drawn as often as a whole data set, as tasks of two classes are few
    otherwise; so are federations of clients of one class, which drown among all others and would
    make up half of what is learned if there were as many data sets of them.
    """
    if is_one_class(table):
        return "texts of one class" if table.domain in LANGUAGE else "images of one class"
    return domain_of(table.run)


def is_one_class(table: EpisodeTable) -> bool:
    """Return whether a round belongs to one of `ONE_CLASS`."""
    return any(part.has(table) for part in ONE_CLASS)


def tables_by_data_set(
    folder: Path, part: Part, clean_samples: int = CLEAN_SAMPLES
) -> dict[str, list[EpisodeTable]]:
    """Return the rounds of a part that are in a store, by data set."""
    tables = tables_of(folder, [part], clean_samples)
    return {name: [t for t in tables if t.domain == name] for name in part.first}


def tables_of(
    folder: Path, parts: Sequence[Part], clean_samples: int = CLEAN_SAMPLES
) -> list[EpisodeTable]:
    """Return the rounds of some parts that are in a store."""
    files = sorted(tables_folder(folder, clean_samples).glob("*.safetensors"))
    tables = [table for file in files for table in read_tables(file)]
    return [table for table in tables if any(part.has(table) for part in parts)]


def play(
    part: Part, folder: Path, data_root: Path, workers: int, *settings: str,
    clean_samples: int = CLEAN_SAMPLES,
) -> None:  # fmt: skip
    """Play and describe federations; what is there is kept.

    Args:
        part: Which.
        folder: Store.
        data_root: Folder of the data sets.
        workers: Federations at a time.
        settings: Of `fl-shield shadow`, besides the part's.
        clean_samples: Clean samples that the server has.
    """
    tables = tables_folder(folder, clean_samples)
    if all((tables / f"{name}.safetensors").is_file() for name in part.names):
        return
    for first in sorted(set(part.first.values())):
        names = ",".join(name for name in sorted(part.first) if part.first[name] == first)
        command = [sys.executable, "-m", "fl_shield.simulations.cli", "shadow", f"store={folder}"]
        command += [f"seed={first}", f"runs={part.runs}", f"domains=[{names}]", f"kind={part.kind}"]
        command += [*part.changes, *settings, f"clean_samples={clean_samples}"]
        command += [f"data_root={data_root}", f"workers={workers}"]
        command.append("leave_out=[" + ",".join(f'"{pattern}"' for pattern in NOT_MADE) + "]")
        subprocess.run(command, cwd=ROOT, check=True)


def store_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of where federations are kept."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, default=ROOT / "runs" / "detector")
    return parser


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark on these federations is told."""
    parser = store_parser(description)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--workers", type=int, default=2)
    return parser


def options_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return what the command line says, and compute with one thread from here on."""
    options = parser.parse_args()
    options.data, options.store = options.data.absolute(), options.store.absolute()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return options
