"""A small trained model of the digits, and samples for its server and its clients."""

from __future__ import annotations

import copy
from functools import cache

import torch

from fl_shield.data.digits import load
from fl_shield.data.task import Split, Task, model_inputs
from fl_shield.models.mlp import Mlp
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.training.local import LocalTraining, train_locally

TRAINING = LocalTraining(learning_rate=0.02, momentum=0.9, epochs=3, batch_size=16)


@cache
def _parts() -> tuple[Task, Mlp, torch.Tensor]:
    task = load()
    torch.manual_seed(0)
    model = Mlp(task.spec, hidden=24)
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(0))
    rough = LocalTraining(learning_rate=0.05, momentum=0.9, epochs=8, batch_size=16)
    train_locally(model, task.train.take(order[:300]), rough, seed=0)
    return task, model.eval(), order


def task() -> Task:
    """Return the digits."""
    return _parts()[0]


def model() -> Mlp:
    """Return a copy of the model."""
    return copy.deepcopy(_parts()[1])


def probes(samples: int) -> ProbeSet:
    """Return the server's clean samples."""
    digits, _, order = _parts()
    split = digits.train.take(order[300 : 300 + samples])
    return ProbeSet(model_inputs(split.inputs), split.labels, digits.spec.num_classes)


def client(number: int) -> Split:
    """Return the samples of a client."""
    digits, _, order = _parts()
    return digits.train.take(order[400 + 100 * number :][:100])
