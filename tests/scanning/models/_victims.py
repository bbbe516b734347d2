"""Small models, really trained on the digits of scikit-learn: clean ones, and with a backdoor."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from fl_shield.attacks.attack import Attack
from fl_shield.data import digits
from fl_shield.data.task import Task, TaskSpec, model_inputs
from fl_shield.models.digits_cnn import DigitsCnn
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.scanning.protocol import Held
from fl_shield.training.local import LocalTraining, train_locally
from fl_shield.triggers.patch import Patch

TRAINING = LocalTraining(optimiser="adam", learning_rate=3e-3, epochs=8, batch_size=32)
TARGET = 3
ATTACK = Attack(trigger=Patch(size=2), target_class=TARGET, poison_share=0.2)


@cache
def task() -> Task:
    return digits.load()


def architecture(spec: TaskSpec) -> nn.Module:
    return DigitsCnn(spec, width=8, hidden=32)


@cache
def victim(seed: int, backdoored: bool) -> nn.Module:
    """Return a model trained on the digits, in eval mode; it is shared, do not change it."""
    torch.manual_seed(seed)
    model = architecture(task().spec)
    attack = ATTACK if backdoored else None
    train_locally(model, task().train, TRAINING, seed=seed, attack=attack)
    return model.eval()


def held(samples: int = 64, labelled: bool = True, start: int = 0) -> Held:
    """Return a defender with clean samples of the test split."""
    order = torch.randperm(len(task().test), generator=torch.Generator().manual_seed(0))
    split = task().test.take(order[start : start + samples])
    labels = split.labels if labelled else None
    clean = ProbeSet(model_inputs(split.inputs), labels, task().spec.num_classes)
    training = LocalTraining(optimiser="adam", learning_rate=3e-3, epochs=20, batch_size=16)
    return Held(clean=clean, spec=task().spec, architecture=architecture, training=training)


def net() -> nn.Module:
    """Return an untrained model, as a factory for the command line."""
    return architecture(task().spec)
