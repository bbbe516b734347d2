"""A round of real training on digits: honest clients, and some that plant a backdoor."""

from __future__ import annotations

import copy
from functools import cache

import torch

from fl_shield.attacks.attack import Attack
from fl_shield.attacks.model_replacement import ModelReplacement
from fl_shield.baselines.observed import Observed
from fl_shield.cohort import ClientUpdate, Cohort
from fl_shield.data.digits import load
from fl_shield.data.task import model_inputs
from fl_shield.models.digits_cnn import DigitsCnn
from fl_shield.models.state import state_arrays
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.training.local import LocalTraining, train_locally
from fl_shield.triggers.patch import Patch

TRAINING = LocalTraining(learning_rate=0.02, momentum=0.9, epochs=3, batch_size=16)


@cache
def digits_round(honest: int = 9, malicious: int = 3) -> Observed:
    """Return a round on IID digits; the last clients of it are malicious, and boost a little."""
    task = load()
    torch.manual_seed(0)
    model = DigitsCnn(task.spec, width=8, hidden=32)
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(0))
    rough = LocalTraining(learning_rate=0.02, momentum=0.9, epochs=10, batch_size=16)
    probes = task.train.take(order[:100])
    train_locally(model, probes, rough, seed=0)
    attack = Attack(trigger=Patch(), model_poisoning=ModelReplacement(boost=2.0)).bind(task)
    clients = []
    for number in range(honest + malicious):
        client, split = copy.deepcopy(model), task.train.take(order[100 + 80 * number :][:80])
        plan = attack if number >= honest else None
        train_locally(client, split, TRAINING, seed=number, attack=plan)
        state = state_arrays(client)
        clients.append(ClientUpdate(number, 80.0, lambda state=state: state))  # type: ignore[misc]
    cohort = Cohort(1, state_arrays(model), tuple(clients))
    probe_set = ProbeSet(model_inputs(probes.inputs), probes.labels, task.spec.num_classes)
    return Observed(cohort, model, probe_set, training=TRAINING)
