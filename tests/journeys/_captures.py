"""A real capture: honest clients of a tiny federation, and some that plant a backdoor."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fl_shield.cohort import ClientUpdate, Cohort, State
from fl_shield.cohort_io import capture, replay
from fl_shield.detector.features import features_of, fit_features
from fl_shield.detector.set_network import SetNetwork
from fl_shield.detector.store import save_detector
from fl_shield.inspection import Inspector
from fl_shield.judge.rescale import ByPart, rescale
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.shadow.table import EpisodeTable

MODULE = "my_audited_model"

CODE = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 24), nn.ReLU())
        self.head = nn.Linear(24, 3)

    def forward(self, inputs):
        return self.head(self.body(inputs))


def broken():
    raise ValueError("no weights here")


def text():
    return "Net"
"""

HONEST, MALICIOUS = 7, 2
FIRST_ID = 2**63  # Flower's node ids need all 64 bits


def make_net() -> nn.Module:
    """Return the model of `CODE`."""
    names: dict[str, type[nn.Module]] = {}
    exec(CODE, names)
    return names["Net"]()


def samples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return points around one centre a class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centres = torch.eye(3).repeat(1, 4) * 2.0
    return centres[labels] + 0.7 * torch.randn(count, 12, generator=generator), labels


def train(start: State, inputs: Tensor, labels: Tensor, epochs: int) -> State:
    """Return the weights after some epochs of local training."""
    net = make_net()
    net.load_state_dict({name: torch.from_numpy(array) for name, array in start.items()})
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(epochs):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(net(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return {name: tensor.numpy().copy() for name, tensor in net.state_dict().items()}


def write_round(
    folder: Path, number: int, reference: State, malicious: int = MALICIOUS, honest: int = HONEST
) -> Path:
    """Capture a round in which the last clients teach a trigger, and boost what they learned."""
    clients = []
    for client in range(honest + malicious):
        inputs, labels = samples(90, seed=100 * number + client)
        if client >= honest:
            inputs[::2, 0], labels[::2] = 8.0, 0
        state = train(reference, inputs, labels, epochs=5)
        if client >= honest:
            state = rescale(state, reference, ByPart(4.0, 4.0))
        clients.append(ClientUpdate(FIRST_ID + client, 90.0, partial(dict, state)))
    return capture(Cohort(number, reference, tuple(clients)), folder)


def global_state() -> State:
    """Return a global model that has learned the honest task."""
    torch.manual_seed(0)
    start = {name: tensor.numpy().copy() for name, tensor in make_net().state_dict().items()}
    return train(start, *samples(300, seed=1), epochs=30)


def write_detector(folder: Path, rounds: Path) -> Path:
    """Train a small detector on federations of its own, numbered from 10, and write it."""
    inputs, labels = samples(32, seed=3)
    inspector = Inspector(make_net(), ProbeSet(inputs, labels))
    reference = global_state()
    tables = []
    for number in range(10, 18):
        malicious = 1 + number % 3
        cohort = replay(write_round(rounds / str(number), number, reference, malicious))
        table = inspector.describe(cohort)
        truth = np.arange(len(cohort)) >= HONEST
        ids = np.arange(len(cohort))
        tables.append(EpisodeTable("tiny", "0", number, table.names, table.raw, truth, ids, {}))
    spec = fit_features(tables)
    torch.manual_seed(0)
    network = SetNetwork(spec.num_features, hidden=16)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    batches = [
        (torch.from_numpy(features_of(spec, t.names, t.raw))[None], torch.from_numpy(t.malicious))
        for t in tables
    ]
    for step in range(240):
        features, wanted = batches[step % len(batches)]
        optimiser.zero_grad()
        odds = network(features)[0]
        loss = nn.functional.binary_cross_entropy_with_logits(odds, wanted.float())
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    card = {"name": "tiny detector", "calibration": {"threshold": 1.0}}
    return save_detector(folder, [network], spec, card)


def write_workplace(folder: Path) -> None:
    """Write model code, probes, a detector, three rounds, and rounds without attackers."""
    (folder / f"{MODULE}.py").write_text(CODE)
    inputs, labels = samples(32, seed=2)
    save_file({"inputs": inputs, "labels": labels}, folder / "probes.safetensors")
    reference = global_state()
    for number in (1, 2, 3):
        write_round(folder / "rounds" / f"round-{number:06d}", number, reference)
    write_detector(folder / "detector", folder / ".training")
    write_round(folder / "honest", 1, reference, malicious=0)
    write_round(folder / "pair", 1, reference, malicious=0, honest=2)
    write_round(folder / "alone", 1, reference, malicious=0, honest=1)
