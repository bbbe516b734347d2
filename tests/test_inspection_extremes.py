"""Descriptors of extreme weights, and of any number of clients, are finite."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fl_shield.cohort import ClientUpdate, Cohort, State
from fl_shield.descriptors.table import DescriptorTable
from fl_shield.inspection import Inspector
from fl_shield.models.state import state_arrays
from fl_shield.probes.probe_set import ProbeSet

LARGEST = float(np.finfo(np.float32).max)
MODERATE = [0.0, 1e-38, 1e-12, 1.0, 1e6, 1e12]
HUGE = [1e19, 1e30, LARGEST]  # their squares are beyond single precision


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.LayerNorm(48)
        )
        self.head = nn.Linear(48, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images))
        return logits


class Texts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 6)
        self.encoder = nn.GRU(6, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(self.embedding(ids))[0][:, -1])
        return logits


def inspected(kind: type[nn.Module]) -> tuple[dict[str, np.ndarray], Inspector]:
    torch.manual_seed(0)
    model = kind()
    inputs = torch.rand(8, 1, 6, 6) if kind is Images else torch.randint(0, 40, (8, 12))
    return state_arrays(model), Inspector(model, ProbeSet(inputs, torch.arange(8) % 3))


INSPECTED: dict[type[nn.Module], tuple[dict[str, np.ndarray], Inspector]] = {
    kind: inspected(kind) for kind in (Images, Texts)
}


def cohort(reference: dict[str, np.ndarray], sizes: list[float]) -> Cohort:
    def loader(state: State) -> Callable[[], State]:
        return lambda: state

    clients = []
    for index, size in enumerate(sizes):
        rng = np.random.default_rng(index)
        state = reference | {
            name: np.clip(value + size * rng.uniform(-1, 1, value.shape), -LARGEST, LARGEST).astype(
                value.dtype
            )
            for name, value in reference.items()
            if value.dtype.kind == "f"
        }
        clients.append(ClientUpdate(index, 1.0, loader(state)))
    return Cohort(1, reference, tuple(clients))


def not_finite(table: DescriptorTable) -> list[str]:
    return [name for j, name in enumerate(table.names) if not np.isfinite(table.raw[:, j]).all()]


@pytest.mark.parametrize("kind", [Images, Texts])
@settings(max_examples=12)
@given(sizes=st.lists(st.sampled_from(MODERATE), min_size=1, max_size=5))
def test_raw_descriptors_are_finite(kind: type[nn.Module], sizes: list[float]) -> None:
    reference, inspector = INSPECTED[kind]
    table = inspector.describe(cohort(reference, sizes))
    assert len(table) == len(sizes)
    assert not_finite(table) == []


@pytest.mark.parametrize("kind", [Images, Texts])
@settings(max_examples=12)
@given(sizes=st.lists(st.sampled_from(MODERATE + HUGE), min_size=1, max_size=5))
def test_standardised_descriptors_are_always_finite(
    kind: type[nn.Module], sizes: list[float]
) -> None:
    reference, inspector = INSPECTED[kind]
    assert np.isfinite(inspector.describe(cohort(reference, sizes)).standardised).all()


@pytest.mark.parametrize("size", HUGE)
@pytest.mark.parametrize("kind", [Images, Texts])
def test_raw_descriptors_of_huge_weights_are_finite(kind: type[nn.Module], size: float) -> None:
    reference, inspector = INSPECTED[kind]
    assert not_finite(inspector.describe(cohort(reference, [0.1, 0.1, size]))) == []


@pytest.mark.parametrize("kind", [Images, Texts])
def test_columns_are_the_same_for_any_number_of_clients(kind: type[nn.Module]) -> None:
    reference, inspector = INSPECTED[kind]
    tables = [inspector.describe(cohort(reference, [0.1] * count)) for count in (1, 3, 30)]
    assert len({table.names for table in tables}) == 1


def test_a_round_without_clients_is_an_empty_table() -> None:
    reference, inspector = INSPECTED[Images]
    assert len(inspector.describe(cohort(reference, []))) == 0
