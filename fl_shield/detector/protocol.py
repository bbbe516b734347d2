"""What every update-level detector offers, trained or not."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fl_shield.descriptors.table import DescriptorTable


@runtime_checkable
class Detector(Protocol):
    """Scores all the clients of a round from their descriptors.

    Implementations are permutation-equivariant over clients and accept any number of them. One
    that has an attribute `columns` reads no others, and clients are looked at no further than
    those descriptors need.
    """

    name: str

    def score(self, table: DescriptorTable) -> NDArray[np.float64]:
        """Return the log-odds `(clients,)` that each update carries a backdoor; finite."""
        ...

    def contributions(self, table: DescriptorTable) -> NDArray[np.float64]:
        """Return `(clients, descriptors)` parts of the scores, used to rank reasons."""
        ...
