"""Sketches of updates: a few hundred numbers that keep angles, so that all pairs can be compared.

A count sketch (Charikar, Chen and Farach-Colton, 2002): every coordinate is added, with a random
sign, to one random bucket. Inner products are kept in the mean, to within about one over the root
of the number of buckets; memory does not grow with clients times parameters.

| name | formula (u = unit update minus the mean unit update of the cohort, sketched) | why |
|---|---|---|
| `nearest` | largest cosine of u with another client's | colluding attackers share a goal (FoolsGold) |
| `near_three` | mean of the three largest such cosines | a crowd of them |
| `alone` | norm of u | how far from what the cohort agrees on |
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fl_shield.descriptors.excess import peer_cosines

BUCKETS = 1024
EPSILON = 1e-12


CHUNK = 1 << 16
"""Weights that are sketched at a time: they stay in the processor's cache."""


class Sketcher:
    """Sketches updates; the same seed gives the same buckets.

    Args:
        seed: Seed of buckets and signs.
        buckets: Numbers in a sketch, at most 16,384.
    """

    def __init__(self, seed: int = 0, buckets: int = BUCKETS) -> None:
        self._seed, self._buckets = seed, buckets
        self._plans: dict[str, Tensor] = {}

    def sketch(self, update: Mapping[str, Tensor]) -> Tensor:
        """Return the sketch `(buckets,)` of an update; parameters are known by their names."""
        signed = torch.zeros(2 * self._buckets, dtype=torch.float64)
        for number, (name, delta) in enumerate(update.items()):
            if name not in self._plans:
                self._plans[name] = self._plan(delta.numel(), number)
            values = delta.detach().reshape(-1).cpu()
            for places, part in zip(
                torch.split(self._plans[name], CHUNK), torch.split(values, CHUNK), strict=True
            ):
                signed += torch.bincount(places.long(), part.double(), 2 * self._buckets)
        return signed[: self._buckets] - signed[self._buckets :]

    def forget_plans(self) -> None:
        """Free two bytes a parameter; the next sketch draws the same buckets and signs again."""
        self._plans.clear()

    def _plan(self, size: int, number: int) -> Tensor:
        """Return each weight's bucket, those that are to be subtracted behind all others."""
        generator = torch.Generator().manual_seed(self._seed * 100_003 + number)
        bucket = torch.randint(self._buckets, (size,), generator=generator)
        positive = torch.randint(2, (size,), generator=generator)
        return (bucket + self._buckets * (1 - positive)).to(torch.int16)


def describe_relations(sketches: Tensor) -> dict[str, Tensor]:
    """Return name to `(clients,)` values, from the `(clients, buckets)` sketches of a cohort."""
    count = len(sketches)
    unit = sketches / sketches.norm(dim=1, keepdim=True).clamp_min(EPSILON)
    residual = unit - unit.mean(dim=0)
    alone = residual.norm(dim=1)
    if count < 2:
        zero = torch.zeros(count)
        return {"nearest": zero, "near_three": zero, "alone": alone}
    direction = residual / alone.clamp_min(EPSILON)[:, None]
    top = peer_cosines(direction).topk(min(3, count - 1), dim=1).values
    return {"nearest": top[:, 0], "near_three": top.mean(dim=1), "alone": alone}
