"""Excess descriptors: what an update does to the logits beyond what the whole cohort does.

Take `(clients, samples, classes)` logit shifts (as in `response.py`: centred, over the spread of
the reference logits) of a cohort on one view at one scale. E is the shift minus its median over the
clients, sample by sample and class by class: movement that everybody shares is training.

| name | formula | why |
|---|---|---|
| `excess_high` | max over classes of mean over samples of E | a class pushed up that others do not push |
| `excess_low` | min over classes of mean over samples of E | a class pushed down that others do not |
| `excess_size` | log of the root mean square of E, plus 0.01 | how far from the cohort, whatever the direction |
| `peer` | largest cosine of E with another client's | colluding attackers err alike, honest oddities alone |
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-6


def logit_shift(client: Tensor, reference: Tensor) -> Tensor:
    """Return the shift `(…, samples, classes)` of centred logits, over the reference's spread."""
    centred = reference - reference.mean(dim=-1, keepdim=True)
    spread = centred.std(dim=(-2, -1), keepdim=True) + EPSILON
    return (client - client.mean(dim=-1, keepdim=True) - centred) / spread


def describe_excess(shifts: Tensor) -> dict[str, Tensor]:
    """Return name to `(clients,)` values, from `(clients, samples, classes)` shifts."""
    excess = shifts - shifts.median(dim=0).values
    by_class = excess.mean(dim=1)
    size = excess.square().mean(dim=(1, 2)).sqrt()
    return {
        "excess_high": by_class.max(dim=1).values,
        "excess_low": by_class.min(dim=1).values,
        "excess_size": torch.log(size + 0.01),
        "peer": nearest_peer(excess.flatten(1)),
    }


def nearest_peer(vectors: Tensor) -> Tensor:
    """Return each row's largest cosine with another row, `(clients,)`; 0 for a lone client."""
    count = len(vectors)
    if count < 2:
        return torch.zeros(count)
    unit = torch.nn.functional.normalize(vectors.double(), dim=1, eps=EPSILON)
    return peer_cosines(unit).max(dim=1).values


def peer_cosines(unit: Tensor) -> Tensor:
    """Return the cosines of rows of length 1 with each other, and −1 with themselves.

    They are symmetric to the last bit, which a product of matrices is not on every processor: two
    clients who are each other's nearest tie, in whatever order they come, and so do their ranks.
    """
    product = unit @ unit.T
    return ((product + product.T) / 2.0).fill_diagonal_(-1.0)
