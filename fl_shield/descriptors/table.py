"""The descriptor table: one row a client, one column a named, dimension-free statistic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DescriptorTable:
    """Descriptors of one cohort.

    Attributes:
        names: Column names, `"<statistic>@<scale>/<view>"` or `"<statistic>"`.
        raw: `(clients, descriptors)` float64, as measured; finite.
        standardised: `(clients, descriptors)` float64, robust z-scores across the cohort; finite.
    """

    names: tuple[str, ...]
    raw: NDArray[np.float64]
    standardised: NDArray[np.float64]

    def __len__(self) -> int:
        return int(self.raw.shape[0])

    def column(self, name: str) -> NDArray[np.float64]:
        """Return the standardised column `name`, shape `(clients,)`.

        Raises:
            KeyError: if there is no such column.
        """
        if name not in self.names:
            raise KeyError(name)
        return self.standardised[:, self.names.index(name)]
