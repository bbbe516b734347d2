"""Descriptors that compare the clients of a round with each other, from what is kept of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fl_shield.activations.extrapolation import RAW
from fl_shield.descriptors.candidates import (
    describe_candidates,
    describe_inverted,
    describe_sought,
)
from fl_shield.descriptors.excess import describe_excess
from fl_shield.descriptors.sketch import describe_relations
from fl_shield.descriptors.slopes import Slopes, describe_slopes
from fl_shield.descriptors.tokens import describe_surplus

JUMBO, INVERTED, TOKENS = "jumbo", "inverted", "tokens"
"""Kinds of candidate triggers: drawn for images, obeyed by the global model, chosen for text."""

PATCHES, PHRASES, SEARCHED = "patches", "phrases", "searched"
"""Further kinds: squares on images, phrases of tokens that moved, phrases that a search found."""

DESCRIBED_BY = {
    INVERTED: describe_inverted, PATCHES: describe_sought, SEARCHED: describe_sought
}  # fmt: skip

SLOPES = "slopes"
"""Slopes of the logits by the input, of both models."""

GUIDED = "guided"
"""View of texts with the tokens inserted that an update moved most."""

NEAR, FAR = "0.25", "4"
"""A part of the way along an update, and further than the client went."""

ASKED_AT = {
    JUMBO: (NEAR, FAR), INVERTED: (NEAR, FAR), TOKENS: (NEAR, FAR), GUIDED: (NEAR, FAR),
    PATCHES: (RAW, NEAR), PHRASES: (RAW, NEAR), SEARCHED: (RAW, NEAR),
    SLOPES: (NEAR,),
}  # fmt: skip
"""Scales at which candidate triggers and update-guided texts are read; few, because they are many."""

NUM_TOKENS = {NEAR: 64, FAR: 24}
"""Single tokens that are candidates, by scale; near, where they say more, more are asked about."""


@dataclass
class Kept:
    """What is kept of every client; its weights are not.

    Attributes:
        shifts: `(block of clients, scales, views, samples, classes)` logit shifts.
        answers: `(candidates, classes)` answers to candidate triggers, by scale and kind, one
            tensor a client.
        slopes: Slopes of the logits by the input, by scale, one a client.
        slope_unit: Root mean square norm of the global model's.
        sketches: `(buckets,)` sketched updates, one tensor a client.
        surplus: `(clients, tokens)` surplus row motion of text, None for other inputs.
    """

    shifts: list[Tensor] = field(default_factory=list)
    answers: dict[tuple[str, str], list[Tensor]] = field(default_factory=dict)
    slopes: dict[str, list[Slopes]] = field(default_factory=dict)
    slope_unit: float = 1.0
    sketches: list[Tensor] = field(default_factory=list)
    surplus: Tensor | None = None


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
    if kept.surplus is not None:
        columns |= describe_surplus(kept.surplus)
    for (scale, kind), answered in kept.answers.items():
        found = DESCRIBED_BY.get(kind, describe_candidates)(torch.stack(answered))
        columns |= {f"{name}@{scale}/{kind}": values for name, values in found.items()}
    for scale, slopes in kept.slopes.items():
        found = describe_slopes(slopes, kept.slope_unit)
        columns |= {f"{name}@{scale}/{SLOPES}": values for name, values in found.items()}
    return columns
