"""The page on detection names every descriptor that the inspector measures, as the source does."""

from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from fl_shield.cohort import ClientUpdate, Cohort
from fl_shield.inspection import Inspector
from fl_shield.models.state import state_arrays
from fl_shield.probes.probe_set import ProbeSet

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "detection.md").read_text(encoding="utf-8")
MODULES = (
    "response", "activation", "excess", "geometry", "sketch", "tokens", "candidates", "slopes",
)  # fmt: skip


def documented() -> set[str]:
    cells = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    return {name.strip().strip("`") for cell in cells for name in cell.split(",")}


@pytest.mark.parametrize("module", MODULES)
def test_the_page_says_what_the_source_says(module: str) -> None:
    source = import_module(f"fl_shield.descriptors.{module}").__doc__ or ""
    rows = [line for line in source.splitlines() if line.startswith("| `")]
    assert rows
    assert [row for row in rows if row not in PAGE] == []


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.relu(self.body(inputs)).mean(dim=(2, 3)))
        return logits


class Texts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.embedding(input_ids).mean(dim=1))
        return logits


def measured(model: nn.Module, inputs: torch.Tensor) -> set[str]:
    reference = state_arrays(model)
    states = []
    for seed in range(4):
        torch.manual_seed(seed)
        moved = {k: torch.from_numpy(v) + 0.1 * torch.randn(v.shape) for k, v in reference.items()}
        states.append({k: v.numpy() for k, v in moved.items()})
    clients = tuple(ClientUpdate(i, 1.0, lambda s=s: s) for i, s in enumerate(states))  # type: ignore[misc]
    probes = ProbeSet(inputs, torch.arange(len(inputs)) % 3, 3)
    table = Inspector(model, probes).describe(Cohort(1, reference, clients))
    return {name.split("@")[0] for name in table.names}


def test_every_descriptor_is_documented_and_every_documented_one_is_measured() -> None:
    torch.manual_seed(0)
    images = measured(Images(), torch.rand(8, 1, 8, 8))
    texts = measured(Texts(), torch.randint(0, 50, (8, 16)))
    assert images | texts == documented()
    of_tokens = ("token_", "pull_", "surplus_", "shared_", "slope_")
    assert {name for name in documented() if name.startswith(of_tokens)} == texts - images
