"""Descriptors of logits and activations at all places, scale by scale and view by view, at once.

A handful of clients is described in one go: the numbers of one client at one place take longer to
ask for than to compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fl_shield.descriptors.activation import activation_columns
from fl_shield.descriptors.response import fit_columns, response_columns
from fl_shield.probes.views import CLEAN

Reading = tuple[Tensor, Tensor]
"""Logits `(…, samples, classes)` and penultimate activations `(…, samples, features)`."""


def describe_places(
    client: Reading,
    reference: Reading,
    scales: Sequence[str],
    views: Sequence[str],
    labels: Tensor | None,
) -> dict[str, Tensor]:
    """Return name to `(clients,)` values of all descriptors at all places, in a fixed order.

    Args:
        client: `(clients, scales, views, samples, …)` under the clients' (extrapolated) weights.
        reference: `(views, samples, …)` under the global weights.
        scales: Names of the scales.
        views: Names of the views.
        labels: `(samples,)` true classes of the clean view, None to take the reference's.
    """
    everywhere = describe_reading(client, reference)
    clean = list(views).index(CLEAN)
    fits = fit_columns(client[0][:, :, clean], reference[0][clean], labels)
    columns: dict[str, Tensor] = {}
    for i, scale in enumerate(scales):
        for j, view in enumerate(views):
            place = f"{scale}/{view}"
            columns |= {f"{name}@{place}": v[:, i, j] for name, v in everywhere.items()}
            if view == CLEAN:
                columns |= {f"{name}@{place}": v[:, i] for name, v in fits.items()}
    return columns


def describe_reading(client: Reading, reference: Reading) -> dict[str, Tensor]:
    """Return name to values `(…)` of the descriptors that every place has, in a fixed order."""
    columns = response_columns(client[0], reference[0])
    return columns | activation_columns(client[1], reference[1])


def in_rows(columns: Mapping[str, Tensor]) -> list[dict[str, float]]:
    """Return each client's own values by name, from name to `(clients,)` values."""
    values = torch.stack([column.double() for column in columns.values()], dim=1)
    return [dict(zip(columns, row, strict=True)) for row in values.tolist()]
