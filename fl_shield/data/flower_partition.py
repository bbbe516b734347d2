"""Partitions made by any partitioner of the `flwr-datasets` package."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_shield.data.partition import Parts
from fl_shield.errors import ConfigurationError, unknown


def flower_partition(
    labels: NDArray[np.int64], num_clients: int, seed: int, name: str, **settings: Any
) -> Parts:
    """Return the parts that a `flwr_datasets` partitioner makes of the labels.

    The parts are disjoint; some partitioners leave samples to nobody (incomplete shards, classes
    that no client was assigned).

    Args:
        labels: `(samples,)` class indices.
        num_clients: Number of parts.
        seed: Seed of the partitioner.
        name: Class name, for example `"ShardPartitioner"` or `"PathologicalPartitioner"`.
        settings: Further arguments of the partitioner.

    Raises:
        ConfigurationError: if the package is missing, the name unknown, the partitioner refuses
            its settings, or a client is left without samples.
    """
    try:
        from datasets import Dataset
        from flwr_datasets import partitioner
    except ImportError as error:
        raise ConfigurationError(
            "This partition needs the flwr-datasets package: pip install 'fl-shield[data]'."
        ) from error
    known = [key for key in dir(partitioner) if key.endswith("Partitioner")]
    if name not in known:
        raise ConfigurationError(unknown("partitioner", name, known))
    kind = getattr(partitioner, name)
    offered = {"num_partitions": num_clients, "partition_by": "label", "seed": seed}
    accepted = inspect.signature(kind).parameters
    try:
        made = kind(**{key: value for key, value in offered.items() if key in accepted}, **settings)
        made.dataset = Dataset.from_dict({"label": labels, "row": np.arange(len(labels))})
        rows = [made.load_partition(client)["row"] for client in range(num_clients)]
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(
            f"{name} cannot deal {len(labels)} samples to {num_clients} clients: {error}"
        ) from error
    empty = next((client for client, row in enumerate(rows) if len(row) == 0), None)
    if empty is not None:
        raise ConfigurationError(
            f"{name} leaves client {empty} of {num_clients} without samples. "
            "Lower num_clients, or change the settings of partition."
        )
    return [np.array(row, dtype=np.int64) for row in rows]
