"""Partitions made by any partitioner of the `flwr-datasets` package."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_shield.data.partition import Parts
from fl_shield.errors import ConfigurationError, unknown


def flower_partition(
    labels: NDArray[np.int64], num_clients: int, seed: int, name: str, **settings: Any
) -> Parts:
    """Return the parts that a `flwr_datasets` partitioner makes of the labels.

    Args:
        labels: `(samples,)` class indices.
        num_clients: Number of parts.
        seed: Seed of the partitioner.
        name: Class name, for example `"ShardPartitioner"` or `"PathologicalPartitioner"`.
        settings: Further arguments of the partitioner.

    Raises:
        ConfigurationError: if the package is missing, the name unknown, or the partitioner
            refuses its settings.
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
    rows = Dataset.from_dict({"label": labels.tolist(), "row": list(range(len(labels)))})
    try:
        made = getattr(partitioner, name)(
            num_partitions=num_clients, partition_by="label", seed=seed, **settings
        )
        made.dataset = rows
        return [np.array(made.load_partition(i)["row"], dtype=np.int64) for i in range(num_clients)]
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{name} cannot deal {len(labels)} samples to {num_clients} clients: {error}"
        ) from error
