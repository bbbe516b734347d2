"""Descriptors that compare the clients of a round with each other, from what is kept of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fl_shield.descriptors.candidates import describe_candidates, describe_inverted
from fl_shield.descriptors.excess import describe_excess
from fl_shield.descriptors.sketch import describe_relations

CANDIDATES, INVERTED = "candidates", "inverted"

GUIDED_SCALE = 4.0
"""Scale at which update-guided and candidate probes are read; one, because they are many."""


@dataclass
class Kept:
    """What is kept of every client; its weights are not.

    Attributes:
        shifts: `(block of clients, scales, views, samples, classes)` logit shifts.
        answers: `(candidates, classes)` answers to candidate triggers, one tensor a client.
        inverted: The same to inverted candidates.
        sketches: `(buckets,)` sketched updates, one tensor a client.
    """

    shifts: list[Tensor] = field(default_factory=list)
    answers: list[Tensor] = field(default_factory=list)
    inverted: list[Tensor] = field(default_factory=list)
    sketches: list[Tensor] = field(default_factory=list)


def compare(kept: Kept, scales: Sequence[str], views: Sequence[str]) -> dict[str, Tensor]:
    """Return name to `(clients,)` values, in a fixed order."""
    if not kept.sketches:
        return {}
    columns = describe_relations(torch.stack(kept.sketches))
    shifts = torch.cat(kept.shifts)
    for i, scale in enumerate(scales):
        for j, view in enumerate(views):
            found = describe_excess(shifts[:, i, j])
            columns |= {f"{name}@{scale}/{view}": values for name, values in found.items()}
    if kept.answers:
        found = describe_candidates(torch.stack(kept.answers))
        place = f"{GUIDED_SCALE:g}/{CANDIDATES}"
        columns |= {f"{name}@{place}": values for name, values in found.items()}
    if kept.inverted:
        found = describe_inverted(torch.stack(kept.inverted))
        place = f"{GUIDED_SCALE:g}/{INVERTED}"
        columns |= {f"{name}@{place}": values for name, values in found.items()}
    return columns
