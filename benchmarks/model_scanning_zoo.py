"""The models behind the figures of the model-level detectors: victims to judge, shadows to learn.

As in MNTD (section VI-A) and MBDS (section V-A), the attacker holds half of the training data, the
defender 4 % of it, and the two have no sample in common: victims are trained on the attacker's
half, shadows on what the defender holds. Every model is a function of its name; those that are in
the store are kept, so that making them can be stopped and started again.

    python -m benchmarks.model_scanning_zoo --data ../shared/data --task mnist
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from fl_shield.atomic import draft_of
from fl_shield.attacks.attack import Attack
from fl_shield.data import glyphs, image_folder
from fl_shield.data.sampling import stratified_indices
from fl_shield.data.task import Split, Task, TaskSpec
from fl_shield.metrics.backdoor import accuracy, attack_success_rate
from fl_shield.scanning.models.augmenting import COPIES, augmented
from fl_shield.training.local import LocalTraining, train_locally
from fl_shield.triggers.blend import Blend
from fl_shield.triggers.jumbo import JumboDistribution
from fl_shield.triggers.patch import Corner, Patch
from fl_shield.triggers.protocol import Trigger

ROOT = Path(__file__).resolve().parent.parent

Role = Literal["victim", "shadow"]

CLEAN = "clean"
KINDS = (CLEAN, "jumbo", "badnets", "blended")

VICTIMS = {
    "mnist": {CLEAN: 32, "jumbo": 32, "badnets": 16, "blended": 16},
    "cifar10": {CLEAN: 32, "jumbo": 32},
    "grey_glyphs": {CLEAN: 32, "jumbo": 32},
}
"""Models to judge of each task and kind."""

SHADOWS = {
    "mnist": {CLEAN: 288, "jumbo": 288},
    "cifar10": {CLEAN: 100, "jumbo": 100},
    "grey_glyphs": {CLEAN: 20},
}
"""Models to learn from; a task without backdoored ones is never learned from, and its clean ones
only set thresholds."""

DEFENDER, ATTACKER = 0.04, 0.5
"""Shares of the training data, without a sample in common."""

CORNERS: tuple[Corner, ...] = ("top-left", "top-right", "bottom-left", "bottom-right")

POISON = {"jumbo": (0.05, 0.5), "badnets": (0.05, 0.2), "blended": (0.05, 0.2)}
"""Range of the share of poisoned samples; Jumbo's is MNTD's."""


Job = TypeVar("Job")
Result = TypeVar("Result")

_work: Callable[[Any], Any] = len
"""What a worker process does; it is forked with it, so that nothing has to be sent."""


def _do(job: Any) -> Any:
    return _work(job)


def in_order_of_arrival(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[Result]:
    """Yield the results of jobs as they are done, by so many forked processes."""
    global _work
    _work = work
    if workers < 2:
        yield from map(work, jobs)
        return
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        yield from pool.imap_unordered(_do, jobs)


@dataclass(frozen=True)
class Zoo:
    """One task of the study.

    Attributes:
        load: Returns the task, given the folder of the data sets.
        model: Returns an untrained model.
        victim: How victims are trained.
        shadow: How shadows are trained, on copies of fewer samples.
    """

    load: Callable[[Path], Task]
    model: Callable[[TaskSpec], nn.Module]
    victim: LocalTraining
    shadow: LocalTraining


def _folder(name: str) -> Callable[[Path], Task]:
    return lambda data: image_folder.load(str(data / name))


def _grey_glyphs(_: Path) -> Task:
    """Return the letters in the form of MNIST: grey, 28x28."""
    task = glyphs.load()

    def grey(split: Split) -> Split:
        # The channel of greatest contrast, stretched, on a dark ground: the mean of all channels
        # often shows next to nothing.
        images = split.inputs.float()
        best = images.flatten(2).std(dim=2).argmax(dim=1)
        chosen = images[torch.arange(len(images)), best][:, None]
        low, high = chosen.amin((2, 3), keepdim=True), chosen.amax((2, 3), keepdim=True)
        chosen = 255 * (chosen - low) / (high - low).clamp_min(1)
        edges = torch.cat([chosen[:, :, 0], chosen[:, :, -1]], dim=2).mean(dim=2)
        chosen = torch.where(edges[..., None, None] > 127, 255 - chosen, chosen)
        small = functional.interpolate(chosen, size=(28, 28), mode="area")
        return Split(small.round().to(torch.uint8), split.labels)

    spec = TaskSpec("image", (1, 28, 28), task.spec.num_classes)
    return Task("grey_glyphs", spec, grey(task.train), grey(task.test), task.classes)


def _adam(epochs: int, batch_size: int) -> LocalTraining:
    return LocalTraining(optimiser="adam", learning_rate=3e-3, epochs=epochs, batch_size=batch_size)


class StridedCnn(nn.Module):
    """Two 5x5 convolutions of stride 2 and one hidden layer: hundreds are trained in minutes."""

    def __init__(self, spec: TaskSpec, width: int, hidden: int = 64) -> None:
        super().__init__()
        channels, height, _ = spec.input_shape
        side = ((height - 5) // 2 + 1 - 5) // 2 + 1
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 5, stride=2), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 5, stride=2), nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * side * side, hidden), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(hidden, spec.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(batch, classes)` of `(batch, channels, height, width)` in [0, 1]."""
        logits: Tensor = self.head(self.features(images))
        return logits


_GREY = partial(StridedCnn, width=8)
_COLOUR = partial(StridedCnn, width=12)
_SHADOW = _adam(8, 128)

ZOOS = {
    "mnist": Zoo(_folder("mnist"), _GREY, _adam(8, 64), _SHADOW),
    "cifar10": Zoo(_folder("cifar10"), _COLOUR, _adam(8, 64), _SHADOW),
    "grey_glyphs": Zoo(_grey_glyphs, _GREY, _adam(10, 64), _SHADOW),
}


@dataclass(frozen=True)
class Holdings:
    """A task and who holds what of its training data; `copies` are the defender's, augmented."""

    task: Task
    defender: Split
    attacker: Split
    copies: Split


@cache
def holdings(name: str, data: Path) -> Holdings:
    """Return a task with its training data dealt out; the same on every machine."""
    task = ZOOS[name].load(data)
    size = len(task.train)
    held = stratified_indices(task.train.labels, round(DEFENDER * size), 0)
    rest = torch.ones(size, dtype=torch.bool)
    rest[held] = False
    others = rest.nonzero().flatten()
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(0))
    taken = others[order[: round(ATTACKER * size)]]
    defender = task.train.take(held)
    return Holdings(task, defender, task.train.take(taken), augmented(defender, COPIES))


def seed_of(name: str, role: Role, kind: str, index: int) -> int:
    """Return the seed of a model."""
    return zlib.crc32(f"{name}/{role}/{kind}/{index}".encode())


def attack_of(name: str, role: Role, kind: str, index: int, task: Task) -> Attack | None:
    """Return the attack on a model, bound to its task; None for clean ones."""
    if kind == CLEAN:
        return None
    generator = torch.Generator().manual_seed(seed_of(name, role, kind, index) + 1)
    chance = [float(x) for x in torch.rand(3, generator=generator)]
    trigger: Trigger
    if kind == "jumbo":
        trigger = JumboDistribution().sample(generator, task.spec)
    elif kind == "badnets":
        trigger = Patch(size=3, corner=CORNERS[int(4 * chance[2])], margin=1)
    else:
        trigger = Blend(alpha=0.2, seed=index)
    low, high = POISON[kind]
    return Attack(
        trigger=trigger,
        target_class=int(chance[0] * task.spec.num_classes),
        poison_share=low + chance[1] * (high - low),
    ).bind(task)


def make(name: str, role: Role, kind: str, index: int, data: Path, store: Path) -> Path:
    """Train one model, unless it is there; return its weights' file, its card beside it."""
    file = store / name / role / f"{kind}-{index:04d}.safetensors"
    if file.is_file():
        return file
    zoo, held = ZOOS[name], holdings(name, data)
    seed = seed_of(name, role, kind, index)
    attack = attack_of(name, role, kind, index, held.task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = zoo.model(held.task.spec)
    split, training = (held.attacker, zoo.victim) if role == "victim" else (held.copies, zoo.shadow)
    started = time.monotonic()
    train_locally(model, split, training, seed=seed, attack=attack)
    card: dict[str, Any] = {"kind": kind, "index": index, "seed": seed}
    card["seconds"] = round(time.monotonic() - started, 2)
    if role == "victim":
        card["accuracy"] = accuracy(model, held.task.test)
        if attack is not None:
            card |= {"trigger": repr(attack.trigger), "target": attack.target_class}
            card |= {"poison_share": attack.poison_share}
            card["asr"] = attack_success_rate(model, held.task.test, attack)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".json").write_text(json.dumps(card), encoding="utf-8")
    with draft_of(file) as draft:
        save_file(model.state_dict(), draft)
    return file


def load_model(name: str, file: Path, spec: TaskSpec) -> nn.Module:
    """Return a model of the store, in eval mode."""
    model = ZOOS[name].model(spec)
    model.load_state_dict(load_file(file))
    return model.eval()


def names(name: str, role: Role, kinds: Sequence[str] | None = None) -> Iterator[tuple[str, int]]:
    """Yield kinds and indices of the models of a task and role, the kinds taking turns."""
    counts = (VICTIMS if role == "victim" else SHADOWS)[name]
    for index in range(max(counts.values())):
        for kind, count in counts.items():
            if index < count and (kinds is None or kind in kinds):
                yield kind, index


PARTS: tuple[tuple[Role, tuple[str, ...]], ...] = (
    ("victim", (CLEAN, "jumbo")),
    ("shadow", (CLEAN, "jumbo")),
    ("victim", ("badnets", "blended")),
)
"""Roles and kinds, those that most figures need first."""


def make_all(
    tasks: Sequence[str], data: Path, store: Path, workers: int = 1, only: Role | None = None
) -> None:
    """Make victims and shadows of all tasks."""
    jobs = [
        (name, role, kind, index)
        for role, kinds in PARTS
        for name in tasks
        if only in (None, role)
        for kind, index in names(name, role, kinds)
    ]
    for name in tasks:
        holdings(name, data)  # read once, in front of the fork

    def make_one(job: tuple[str, Role, str, int]) -> Path:
        return make(*job, data, store)

    for _ in in_order_of_arrival(make_one, jobs, workers):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description="train the models of the model-level study")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--store", type=Path, default=ROOT / "runs" / "models")
    parser.add_argument("--task", choices=ZOOS, nargs="+", default=list(ZOOS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--role", choices=("victim", "shadow"), help="these only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    make_all(
        options.task,
        options.data.absolute(),
        options.store.absolute(),
        options.workers,
        options.role,
    )


if __name__ == "__main__":
    main()
