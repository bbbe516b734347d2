"""The inspector sees a planted backdoor, however neurons and classes are numbered."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_shield.cohort import ClientUpdate, Cohort, State
from fl_shield.descriptors.table import DescriptorTable
from fl_shield.inspection import Inspector
from fl_shield.probes.probe_set import ProbeSet

CLASSES, HIDDEN = 4, 24
Weights = dict[str, NDArray[np.float32]]


class Layers(nn.Module):
    """A perceptron over images, with layer normalisation and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(64, HIDDEN)
        self.norm = nn.LayerNorm(HIDDEN)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.drop(torch.relu(self.norm(self.body(images.flatten(1)))))
        logits: Tensor = self.head(hidden)
        return logits


def samples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return noisy images, each class a bright quarter."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    images = 0.4 * torch.rand(count, 1, 8, 8, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[0, row + 1 : row + 3, column + 1 : column + 3] += 0.5
    return images, labels


def triggered(images: Tensor) -> Tensor:
    marked = images.clone()
    marked[:, :, :2, :2] = 1.0
    return marked


def train(state: State | None, images: Tensor, labels: Tensor, seed: int, steps: int) -> Weights:
    torch.manual_seed(seed)
    model = Layers()
    if state is not None:
        model.load_state_dict({k: torch.from_numpy(np.asarray(v)) for k, v in state.items()})
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}


def federation() -> tuple[Weights, list[Weights]]:
    """Return global weights and six updates; the last two are backdoored towards class 2."""
    reference = train(None, *samples(120, 0), seed=0, steps=150)
    updates = []
    for client in range(6):
        images, labels = samples(60, 10 + client)
        if client >= 4:
            images = torch.cat([images, triggered(images[:30])])
            labels = torch.cat([labels, torch.full((30,), 2)])
        updates.append(train(reference, images, labels, seed=client, steps=40))
    return reference, updates


def describe(reference: Weights, updates: list[Weights], labels: Tensor) -> DescriptorTable:
    def loader(state: Weights) -> Callable[[], State]:
        return lambda: state

    clients = tuple(ClientUpdate(i, 10.0, loader(state)) for i, state in enumerate(updates))
    inspector = Inspector(Layers(), ProbeSet(samples(16, 99)[0], labels))
    return inspector.describe(Cohort(1, reference, clients))


def renumbered(state: Weights, neurons: NDArray[np.int64], classes: NDArray[np.int64]) -> Weights:
    """Return the same function with hidden neurons and classes in another order."""
    moved = dict(state)
    for name in ("body.weight", "body.bias", "norm.weight", "norm.bias"):
        moved[name] = state[name][neurons]
    moved["head.weight"] = state["head.weight"][classes][:, neurons]
    moved["head.bias"] = state["head.bias"][classes]
    return moved


def column(table: DescriptorTable, name: str) -> NDArray[np.float64]:
    return np.asarray(table.raw[:, table.names.index(name)])


def test_a_planted_backdoor_stands_out_of_honest_updates() -> None:
    reference, updates = federation()
    model = Layers().eval()
    model.load_state_dict({k: torch.from_numpy(v) for k, v in updates[5].items()})
    with torch.no_grad():  # the backdoor is really there
        assert (model(triggered(samples(40, 7)[0])).argmax(dim=1) == 2).float().mean() > 0.9
    table = describe(reference, updates, samples(16, 99)[1])
    for name in ("answer_top@4/jumbo", "excess_high@4/noise", "peer@4/noise", "nearest"):
        values = column(table, name)
        assert values[4:].min() > np.median(values[:4]), name


def test_numbering_of_neurons_and_classes_does_not_matter() -> None:
    reference, updates = federation()
    rng = np.random.default_rng(4)
    neurons, classes = rng.permutation(HIDDEN), rng.permutation(CLASSES)
    labels = samples(16, 99)[1]
    one = describe(reference, updates, labels)
    moved = [renumbered(state, neurons, classes) for state in updates]
    # Class c stands where `classes` has it.
    relabelled = torch.from_numpy(np.argsort(classes))[labels]
    other = describe(renumbered(reference, neurons, classes), moved, relabelled)
    assert one.names == other.names
    # Buckets of a sketch belong to coordinates: its angles are kept only in the mean.
    sketched = {"nearest", "near_three", "alone"}
    for name in one.names:
        tolerance = 0.2 if name in sketched else 5e-3
        np.testing.assert_allclose(
            column(other, name), column(one, name), atol=tolerance, rtol=5e-3, err_msg=name
        )


def test_half_precision_weights_tell_the_same_story() -> None:
    reference, updates = federation()
    labels = samples(16, 99)[1]
    halved = [{k: v.astype(np.float16) for k, v in s.items()} for s in (reference, *updates)]
    one = describe(reference, updates, labels)
    other = describe(halved[0], halved[1:], labels)  # type: ignore[arg-type]
    for name in ("log_norm", "agreement", "shift_high@4/clean", "turn@4/clean"):
        np.testing.assert_allclose(column(other, name), column(one, name), atol=0.1, err_msg=name)
