"""The shadow models that MetaShield's detector of whole models learns from, and the learning.

    python -m benchmarks.model_scanning_classes

Tasks are those that every machine can make, and none of them is judged in `docs/results/models.md`:
handwritten digits of scikit-learn brought to 28x28, patches of two photographs, and drawn shapes
and gratings in colour and in grey, all with two to ten classes. Backdoors are Jumbo's. A model is a
function of its number, and those in the store are kept.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from benchmarks.model_scanning_zoo import POISON, ROOT, StridedCnn, in_order_of_arrival
from fl_shield.activations.penultimate import find_final_layer
from fl_shield.atomic import draft_of
from fl_shield.attacks.attack import Attack
from fl_shield.data import digits, photos, some_classes
from fl_shield.data.drawn import SIZE, drawn_task
from fl_shield.data.sampling import stratified_indices
from fl_shield.data.task import Split, Task, TaskSpec, model_inputs
from fl_shield.metrics.backdoor import accuracy, attack_success_rate
from fl_shield.metrics.detection import auroc
from fl_shield.models.digits_cnn import DigitsCnn
from fl_shield.scanning.models.class_descriptors import ClassSearch, describe_classes
from fl_shield.scanning.models.class_detector import save_class_detector
from fl_shield.scanning.models.class_learning import (
    ClassTable,
    learn,
    unseen_scores,
    with_threshold,
)
from fl_shield.scanning.models.meta_shield import SHIPPED
from fl_shield.training.local import LocalTraining, train_locally
from fl_shield.triggers.jumbo import JumboDistribution

MODELS = 144
"""Shadow models, every second one with a backdoor."""

WORKS = 0.5
"""A backdoor that succeeds less often is none to learn from."""

COMMAND = "python -m benchmarks.model_scanning_classes"

HELD = 32
"""Clean samples that a shadow is described with; it has not been trained on them."""

WHOLE = 0.7
"""Share of the shadows that know all classes of their task."""

PADDED = 0.25
"""Share of the shadows with padded convolutions and pooling; the others have strides."""

STEPS, BATCH = (250, 600), 64
"""Range of the steps of a training, and the samples of each."""

ORIENTATIONS = 5

SHAPES = (
    "triangle", "square", "pentagon", "disc", "ring", "cross", "bar", "stairs", "frame", "arrow"
)  # fmt: skip


def _grating(label: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return stripes `(32, 32, 3)`: the class is their direction, and whether they are fine."""
    angle = (label % ORIENTATIONS) * np.pi / ORIENTATIONS + rng.normal(0, 0.1)
    pitch = rng.uniform(9, 12) / (1 + label // ORIENTATIONS)
    across, down = np.meshgrid(np.arange(SIZE) - 16.0, np.arange(SIZE) - 16.0)
    phase = 2 * np.pi * (across * np.cos(angle) + down * np.sin(angle)) / pitch
    wave = np.sin(phase + rng.normal(0, 0.7))[..., None]
    return _noisy(rng.uniform(70, 185, size=3) + rng.uniform(20, 70, size=3) * wave, rng)


def _shape(label: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a shape `(32, 32, 3)` on a dark ground, a little turned, moved and resized."""
    from PIL import Image, ImageDraw

    mask = Image.new("L", (SIZE, SIZE))
    draw, size = ImageDraw.Draw(mask), rng.uniform(6, 10)
    (x, y), name = 16 + rng.uniform(-4, 4, size=2), SHAPES[label]
    box = (x - size, y - size, x + size, y + size)
    if name in ("triangle", "square", "pentagon"):
        sides = 3 + SHAPES.index(name)
        draw.regular_polygon((float(x), float(y), float(size)), sides, fill=255)
    elif name in ("disc", "ring", "frame"):
        kind = draw.rectangle if name == "frame" else draw.ellipse
        kind(box, fill=255 if name == "disc" else None, outline=255, width=3)
    elif name == "cross":
        draw.line((x - size, y, x + size, y), fill=255, width=4)
        draw.line((x, y - size, x, y + size), fill=255, width=4)
    elif name == "bar":
        draw.line((x, y - size, x, y + size), fill=255, width=5)
    elif name == "stairs":
        draw.line((x - size, y + size, x - size, y, x, y, x, y - size, x + size, y - size), 255, 3)
    else:
        draw.line((x - size, y, x + size, y, x, y - size), fill=255, width=3)
        draw.line((x + size, y, x, y + size), fill=255, width=3)
    ink = np.asarray(mask.rotate(float(rng.uniform(-20, 20))), dtype=np.float64)[..., None] / 255
    ground = rng.uniform(0, 80, size=3)
    return _noisy(ground * (1 - ink) + rng.uniform(140, 255, size=3) * ink, rng)


def _noisy(image: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    noise = rng.normal(0, rng.uniform(2, 20), (SIZE, SIZE, 3))
    return np.asarray(np.clip(image + noise, 0, 255), dtype=np.uint8)


def _gratings() -> Task:
    names = [f"{k % ORIENTATIONS} {'fine' if k >= ORIENTATIONS else 'coarse'}" for k in range(10)]
    return drawn_task("gratings", names, _grating, 400, 0.2, 0, None, None)


def _shapes() -> Task:
    return drawn_task("shapes", SHAPES, _shape, 400, 0.2, 0, None, None)


def _resized(load: Callable[[], Task], name: str) -> Task:
    """Return a task in the form of MNIST: grey, 28x28."""
    task = load()

    def grey(split: Split) -> Split:
        images = split.inputs.float().mean(dim=1, keepdim=True)
        small = functional.interpolate(images, size=(28, 28), mode="bilinear", antialias=True)
        return Split(small.round().clamp(0, 255).to(torch.uint8), split.labels)

    spec = TaskSpec("image", (1, 28, 28), task.spec.num_classes)
    return Task(name, spec, grey(task.train), grey(task.test), task.classes)


TASKS: dict[str, Callable[[], Task]] = {
    "digits": lambda: _resized(digits.load, "digits"),
    "photos": photos.load,
    "shapes": _shapes,
    "grey_shapes": lambda: _resized(_shapes, "grey_shapes"),
    "gratings": _gratings,
    "grey_gratings": lambda: _resized(_gratings, "grey_gratings"),
}

_loaded = cache(lambda name: TASKS[name]())


@dataclass(frozen=True)
class Plan:
    """One shadow model: everything about it follows from its number."""

    number: int
    domain: str
    task: Task
    architecture: Callable[[TaskSpec], nn.Module]
    training: LocalTraining
    samples: int
    attack: Attack | None

    @property
    def held(self) -> Split:
        """Clean samples, evenly over the classes, none of which it is trained on."""
        return self.task.test.take(stratified_indices(self.task.test.labels, HELD, self.number))


def plan_of(number: int) -> Plan:
    """Return the plan of a shadow model."""
    names = list(TASKS)
    name, backdoored = names[number % len(names)], bool(number // len(names) % 2)
    rng = np.random.default_rng(number)
    task = _loaded(name)
    if rng.random() > WHOLE:
        chosen = rng.permutation(10)[: rng.integers(2, 10)].tolist()
        task = some_classes.load(partial(_loaded, name), chosen)
    spec = task.spec
    architecture: Callable[[TaskSpec], nn.Module] = (
        partial(DigitsCnn, width=8, hidden=int(rng.choice([32, 64])))
        if rng.random() < 0.25
        else partial(
            StridedCnn, width=int(rng.choice([6, 8, 12])), hidden=int(rng.choice([32, 96]))
        )
    )
    samples = min(len(task.train), int(rng.integers(1000, 3000)))
    training = LocalTraining(
        optimiser="adam",
        learning_rate=float(rng.choice([1.5e-3, 3e-3])),
        epochs=max(1, round(int(rng.integers(*STEPS)) * BATCH / samples)),
        batch_size=BATCH,
    )
    attack = None
    if backdoored:
        low, high = POISON["jumbo"]
        generator = torch.Generator().manual_seed(number)
        attack = Attack(
            trigger=JumboDistribution().sample(generator, spec),
            target_class=int(rng.integers(spec.num_classes)),
            poison_share=float(rng.uniform(low, high)),
        ).bind(task)
    return Plan(number, name, task, architecture, training, samples, attack)


def make(plan: Plan, store: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return a shadow model and its card, from the store or trained."""
    file = store / f"{plan.number:04d}.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.number)
        model = plan.architecture(plan.task.spec)
    if not file.is_file():
        chosen = torch.randperm(
            len(plan.task.train), generator=torch.Generator().manual_seed(plan.number)
        )[: plan.samples]
        train_locally(
            model, plan.task.train.take(chosen), plan.training, seed=plan.number, attack=plan.attack
        )
        card: dict[str, Any] = {"domain": plan.domain, "classes": plan.task.spec.num_classes}
        card["accuracy"] = accuracy(model, plan.task.test)
        if plan.attack is not None:
            card |= {"trigger": repr(plan.attack.trigger), "target": plan.attack.target_class}
            card["asr"] = attack_success_rate(model, plan.task.test, plan.attack)
        store.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".json").write_text(json.dumps(card), encoding="utf-8")
        with draft_of(file) as draft:
            save_file(model.state_dict(), draft)
    model.load_state_dict(load_file(file))
    found: dict[str, Any] = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    return model.eval().requires_grad_(False), found


def described(number: int, store: Path) -> dict[str, Any]:
    """Return the card of a shadow with its descriptors, `names` and `table`, kept in the store."""
    file = store / f"{number:04d}.table.json"
    if not file.is_file():
        plan = plan_of(number)
        model, card = make(plan, store)
        images = model_inputs(plan.held.inputs)
        layer = find_final_layer(model, images)
        names, table = describe_classes(model, images, plan.held.labels, layer, ClassSearch())
        card |= {"names": list(names), "table": table.tolist()}
        with draft_of(file) as draft:
            draft.write_text(json.dumps(card), encoding="utf-8")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def tables_of(cards: Sequence[dict[str, Any]]) -> list[ClassTable]:
    """Return the tables of shadows that are clean, or whose backdoor works."""
    return [
        ClassTable(
            card["domain"].removeprefix("grey_"),
            tuple(card["names"]),
            np.array(card["table"]),
            card.get("target"),
        )
        for card in cards
        if card.get("asr", 1.0) >= WORKS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="learn the detector of whole models")
    parser.add_argument("--store", type=Path, default=ROOT / "runs" / "models" / "classes")
    parser.add_argument("--folder", type=Path, default=SHIPPED, help="where the detector goes")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = options.store.absolute()
    work = partial(described, store=store)
    for _ in in_order_of_arrival(work, range(MODELS), options.workers):
        pass
    cards = [described(number, store) for number in range(MODELS)]
    tables = tables_of(cards)
    unseen = unseen_scores(tables)
    detector = with_threshold(learn(tables), unseen)
    card = {
        "name": "meta-learned detector of target classes",
        "command": COMMAND,
        "shadow_models": dict(sorted(Counter(card["domain"] for card in cards).items())),
        "learned_from": {
            "clean": sum(table.target is None for table in tables),
            "backdoored": sum(table.target is not None for table in tables),
        },
        "triggers": "Jumbo",
        "unseen_data_sets": {
            group: {"models": len(truth), "auroc": auroc(scores, truth)}
            for group, (scores, truth) in unseen.items()
        },
    }
    save_class_detector(options.folder, replace(detector, card=card))
    print(json.dumps(card, indent=1))


if __name__ == "__main__":
    main()
