"""Shadow models of MBDS: feature extractors trained on contaminated samples (IV-B and IV-C).

A shadow model that never learned its trigger has nothing to teach. Each is therefore trained until
it knows its samples and obeys its trigger, or for as long as `ROUNDS` allows; the paper states an
attack success rate of 91 %.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fl_shield.atomic import draft_of
from fl_shield.data.task import Split, Task
from fl_shield.metrics.backdoor import accuracy
from fl_shield.scanning.contamination import Contaminated, Contamination, contaminate, draw_jumbo
from fl_shield.scanning.protocol import Held
from fl_shield.training.local import LocalTraining, train_locally

SHADOW_TRAINING = LocalTraining(optimiser="adam", learning_rate=1e-3, epochs=10, batch_size=16)
"""Of one round."""

ROUNDS = 4
"""Rounds of training, at most."""

ENOUGH = 0.95
"""A shadow model is done once it gets this share of its own samples right, of the clean and of the
triggered ones."""


@dataclass(frozen=True)
class ShadowModel:
    """One feature extractor.

    Attributes:
        model: In eval mode.
        found: What it was trained on.
        setting: The backdoor that it has.
        benign_accuracy: On the clean samples among them.
        attack_success: Share of the triggered ones, not of the target class, that obey.
    """

    model: nn.Module
    found: Contaminated
    setting: Contamination
    benign_accuracy: float
    attack_success: float


def shadow_model(held: Held, split: Split, index: int, store: Path | None = None) -> ShadowModel:
    """Return a shadow model, from the store if it was trained before.

    Args:
        held: What the defender holds; the architecture must be there.
        split: Its clean samples.
        index: Number of the shadow model; with `held.seed`, everything random follows from it.
        store: Folder that trained weights are kept in; None to keep none.
    """
    assert held.architecture is not None
    task = Task("held", held.spec, split, split, tuple(map(str, range(held.spec.num_classes))))
    seed = 10_000 * held.seed + index
    generator = torch.Generator().manual_seed(seed)
    setting = draw_jumbo(task, generator)
    found = contaminate(split, setting, generator)
    training = held.training or SHADOW_TRAINING
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = held.architecture(held.spec)
    others = found.poisoned & (found.origin != setting.target_class)
    triggered = Split(found.split.inputs[others], found.split.labels[others])
    file = None if store is None else _file(store, model, found.split, training, seed)
    if file is not None and file.is_file():
        model.load_state_dict(load_file(file))
    else:
        for number in range(ROUNDS):
            train_locally(model, found.split, training, seed=seed + 7919 * number)
            if min(accuracy(model, part) or 0.0 for part in (split, triggered)) >= ENOUGH:
                break
        if file is not None:
            with draft_of(file) as draft:
                save_file({n: t.contiguous() for n, t in model.state_dict().items()}, draft)
    return ShadowModel(
        model.eval(), found, setting,
        accuracy(model, split) or 0.0, accuracy(model, triggered) or 0.0,
    )  # fmt: skip


def kept_features(
    predicted: Tensor, labels: Tensor, poisoned: Tensor, origin: Tensor, target: int
) -> Tensor:
    """Return which features pass the two filters of section V-A, `(samples,)` bool.

    Args:
        predicted: `(samples,)` classes that the shadow model gives.
        labels: `(samples,)` that it was trained on: the target class for poisoned samples.
        poisoned: `(samples,)` bool.
        origin: `(samples,)` true classes.
        target: The target class.
    """
    return (predicted == labels) & ~(poisoned & (origin == target))


def _file(store: Path, model: nn.Module, split: Split, training: LocalTraining, seed: int) -> Path:
    """Return the file of a shadow model; another model, data or training is another file."""
    shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    facts = [shapes, repr(training), ROUNDS, ENOUGH, tuple(split.inputs.shape)]
    text = json.dumps(facts).encode() + split.labels.numpy().tobytes()
    text += split.inputs[:16].contiguous().numpy().tobytes()
    return store / f"{hashlib.sha256(text).hexdigest()[:12]}-{seed:06d}.safetensors"
