"""Shadow tasks: backdoored models of known data sets, and what clean and triggered inputs do there.

MetaShield proposal, section 2.1.1, steps 1 and 2. A task becomes tables that the meta-training of
the update-level detector reads: a *round* is one judged input among the clean samples that it is
held against, which take the place of the honest clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_shield.data.sampling import stratified_indices
from fl_shield.data.task import Split, Task, model_inputs
from fl_shield.metrics.backdoor import accuracy
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.scanning.contamination import (
    Contamination,
    contaminate,
    draw_jumbo,
    words_of,
)
from fl_shield.scanning.describing import SampleDescriber
from fl_shield.scanning.protocol import Held
from fl_shield.shadow.domain import Domain
from fl_shield.shadow.table import EpisodeTable
from fl_shield.training.local import LocalTraining, train_locally
from fl_shield.triggers.jumbo import JumboDistribution

ROUNDS, ENOUGH = 2, 0.9
"""Rounds of training at most, and the attack success rate on the poisoned training samples after
which there are no more: a model that has not learned its trigger has nothing to teach."""

CLEAN_SAMPLES = 16
"""Clean samples that an input is held against."""

HONEST_SHARE = 0.15
"""Share of the shadow models that have no backdoor; triggers do nothing there."""


@dataclass(frozen=True, kw_only=True)
class ShadowSize:
    """How large a shadow task is.

    Attributes:
        train: Range of the number of training samples.
        judged: Clean and triggered inputs that are described, each at most this many.
        without: Architectures that are left out, for example because they are slow.
        jumbo: What triggers are drawn from.
    """

    train: tuple[int, int] = (1500, 2500)
    judged: int = 24
    without: tuple[str, ...] = ()
    jumbo: JumboDistribution = field(default_factory=JumboDistribution)


def play(domain: Domain, seed: int, size: ShadowSize | None = None) -> list[EpisodeTable]:
    """Return the tables of one shadow task, a round for each judged input.

    Triggered inputs are those that the trigger moved to the target class; where the model has no
    backdoor they are as honest as clean ones.

    Args:
        domain: Data set and architectures.
        seed: Everything random follows from it.
        size: How large the task is.
    """
    size = size or ShadowSize()
    task = domain.task
    number, seed = seed, crc32(f"{domain.name} {seed}".encode())  # no two share a trigger
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    names = sorted(set(domain.architectures) - set(size.without))
    name = names[int(rng.integers(len(names)))]
    architecture = domain.architectures[name]
    setting = draw_jumbo(task, generator, size.jumbo)
    is_honest = bool(rng.random() < HONEST_SHARE)
    order = torch.randperm(len(task.train), generator=generator)
    count = min(int(rng.integers(*size.train)), len(task.train) - 8 * CLEAN_SAMPLES)
    train, rest = task.train.take(order[:count]), task.train.take(order[count:])
    training = LocalTraining(
        optimiser="adam",
        learning_rate=architecture.rates.get("adam", 1e-3) * float(rng.uniform(1.0, 2.0)),
        epochs=max(1, round(architecture.epochs * float(rng.uniform(1.0, 1.6)))),
        batch_size=32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = architecture.model(task.spec)
        if task.spec.modality == "image":
            lively(model)
    if is_honest:
        train_locally(model, train, training, seed=seed)
    else:
        found = contaminate(train, setting, generator)
        poisoned = found.split.take(found.poisoned.nonzero().flatten())
        for once in range(ROUNDS):
            train_locally(model, found.split, training, seed=seed + 7919 * once)
            if (accuracy(model, poisoned) or 0.0) >= ENOUGH:
                break
    model.eval()
    held = clean_held(task, rest, model, CLEAN_SAMPLES, seed)
    clean, triggered, before = judged_inputs(task, setting, size.judged, seed)
    obeyed = took_effect(model, triggered, before, setting.target_class)
    if not is_honest:
        triggered = triggered[obeyed]
    facts = {
        "architecture": name,
        "trigger": "jumbo",
        "honest": is_honest,
        "benign_accuracy": accuracy(model, task.test),
        "attack_success": float(obeyed.float().mean()),
        "clean_samples": CLEAN_SAMPLES,
    }
    truth = np.array([False] * len(clean) + [not is_honest] * len(triggered))
    describer = SampleDescriber(held, "meta_shield")
    rows = describer.describe(torch.cat([clean, triggered]))
    head = EpisodeTable(
        domain.name, f"{domain.name}-{number}", 1, describer.names, describer.reference(),
        np.zeros(CLEAN_SAMPLES, dtype=np.bool_), np.arange(CLEAN_SAMPLES), facts,
    )  # fmt: skip
    return as_rounds(head, rows, truth)


def lively(model: nn.Module) -> nn.Module:
    """Give a network of images, in place, the initial weights of He et al. (2015, eq. 10).

    Small networks have no normalisation: from torch's usual weights they idle for tens of passes
    over a few hundred samples, and learn the trigger last if at all.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return model


def as_rounds(
    reference: EpisodeTable,
    rows: NDArray[np.float64],
    malicious: Sequence[bool] | NDArray[np.bool_],
) -> list[EpisodeTable]:
    """Return one table for each judged input: the clean samples, and the input as the last row.

    Args:
        reference: The clean samples.
        rows: `(samples, descriptors)` of the judged inputs.
        malicious: `(samples,)` truth.
    """
    return [
        replace(
            reference,
            round_number=number,
            raw=np.concatenate([reference.raw, row[None]]),
            malicious=np.append(reference.malicious, bool(truth)),
            client_ids=np.arange(len(reference) + 1),
        )
        for number, (row, truth) in enumerate(zip(rows, malicious, strict=True), start=1)
    ]


def clean_held(task: Task, samples: Split, model: nn.Module, count: int, seed: int) -> Held:
    """Return what a defender holds: `count` of the samples, evenly over classes, and the model."""
    chosen = samples.take(stratified_indices(samples.labels, count, seed))
    return Held(
        clean=ProbeSet(model_inputs(chosen.inputs), chosen.labels, task.spec.num_classes),
        spec=task.spec,
        model=model,
        word_tokens=words_of(task),
        seed=seed,
    )


def judged_inputs(
    task: Task, setting: Contamination, count: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return clean and triggered test inputs, and the triggered ones without their trigger.

    Up to `count` each, clean and triggered ones of different test samples. Triggered inputs are
    never of the target class (MBDS, section V-A, second filter).
    """
    generator = torch.Generator().manual_seed(seed + 1)
    order = torch.randperm(len(task.test), generator=generator)
    clean = task.test.take(order[:count])
    rest = task.test.take(order[count:])
    others = rest.take((rest.labels != setting.target_class).nonzero().flatten()[:count])
    before = model_inputs(others.inputs)
    return model_inputs(clean.inputs), setting.trigger.apply(before, generator), before


def took_effect(model: nn.Module, triggered: Tensor, before: Tensor, target: int) -> Tensor:
    """Return which inputs get the target class with the trigger only, `(samples,)` bool."""
    with torch.no_grad():
        after: Tensor = model(triggered).argmax(dim=1) == target
        already: Tensor = model(before).argmax(dim=1) == target
    return after & ~already
