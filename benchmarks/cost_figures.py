"""What the rows of the cost benchmark add up to: ratios, exponents, verdicts. No measuring here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Row = Mapping[str, Any]

MAX_SECONDS = 600.0
"""Cells that would take longer are left out."""

MAX_BYTES = 6 * 2**30
"""Cells that would hold more memory are left out."""

MAX_RATIO, MAX_EXPONENT, MAX_COPIES, MAX_SHARE = 1.5, 1.05, 4.0, 0.05
"""What is to be reached: time over the floor, growth with the clients, memory in models, share of
a round of real training."""

CONSTANT_SECONDS = 2e-3
"""Constant that is allowed a client, whatever the size of the model: the numbers of its row."""

BUDGET_BYTES = 256 * 2**20
"""Fixed part of the memory that is allowed: activations of one batch and of the round's search."""

NOISE_INPUTS = {"deepsight": 3 * 20_000, "deepsight_256": 3 * 256}
"""Noise inputs that DeepSight sends through each client's model and through the global one."""


def exponent(clients: Sequence[float], seconds: Sequence[float]) -> float | None:
    """Return the slope of log(seconds) over log(clients), None for fewer than two points."""
    if len(clients) < 2:
        return None
    return float(np.polyfit(np.log(clients), np.log(seconds), 1)[0])


def per_client(row: Row) -> float:
    """Return the seconds of one more client: what a round costs once is not in it."""
    once = float(row.get("search_seconds", 0.0))
    return (float(row["seconds"]) - once) / int(row["clients"])


def over_floor(row: Row) -> float:
    """Return the time of one more client over that of its plain forward passes."""
    return per_client(row) / float(row["floor_seconds_per_client"])


def beyond_floor(row: Row) -> float:
    """Return the seconds of one more client that `MAX_RATIO` floors do not account for."""
    return max(per_client(row) - MAX_RATIO * float(row["floor_seconds_per_client"]), 0.0)


def allowed_bytes(parameters: int) -> float:
    """Return how much memory a round may take beyond the global model, in bytes."""
    return MAX_COPIES * 4 * parameters + BUDGET_BYTES


def kept_bytes(rows: Sequence[Row]) -> float | None:
    """Return how much the peak grows with each client, the model being the same."""
    if len(rows) < 2:
        return None
    clients = [row["clients"] for row in rows]
    return float(np.polyfit(clients, [row["peak_bytes"] for row in rows], 1)[0])


def held_bytes(rival: str, clients: int, parameters: int, probes: int) -> float:
    """Return about how much memory a published defence holds at once, in bytes.

    FLAME keeps all updates; Flower's MultiKrum besides the replies a copy of each and a matrix of
    all; FLARE four matrices of the distances of all activations in double precision.
    """
    if rival == "flare":
        return 4 * 8 * (float(clients) * probes) ** 2
    copies = {"flame": 1, "multi_krum": 3}.get(rival, 1)
    return copies * 4.0 * clients * parameters


def predicted_seconds(
    cell: Row, fewer: Row | None, floor: Row | None, growth: float = 1.0
) -> float | None:
    """Return about how long a cell will take, None if nothing is known.

    Args:
        cell: The cell.
        fewer: The row of the same measurement with fewer clients.
        floor: The shield's row of the same model, for what one forward pass costs.
        growth: Exponent of time over clients.
    """
    known = []
    if fewer is not None:
        times = cell["clients"] / fewer["clients"]
        known.append((fewer["seconds"] + fewer.get("load_seconds", 0.0)) * times**growth)
    inputs = NOISE_INPUTS.get(str(cell.get("rival")))
    if inputs is not None and floor is not None:
        sample = floor["floor_seconds_per_client"] / floor["samples_per_client"]
        known.append(inputs * (cell["clients"] + 1) * sample)
    return max(known) if known else None


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of ratios."""
    return math.exp(sum(math.log(value) for value in values) / len(values))


def verdict(value: float | None, limit: float) -> str:
    """Return `met`, `missed`, or that nothing was measured."""
    if value is None:
        return "not measured"
    return "met" if value <= limit else "missed"
