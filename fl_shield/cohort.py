"""The cohort: the global model sent out in a round and the admitted updates that came back.

Client weights are read lazily, one client at a time, so that memory does not grow with the
number of clients. Nothing here knows of Flower: `fl_shield.strategies.messages` makes cohorts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

State = Mapping[str, NDArray[np.generic]]
"""A model state: array name (as in `torch.nn.Module.state_dict`) to array."""


@dataclass(frozen=True)
class ClientUpdate:
    """One admitted reply of a round.

    Attributes:
        client_id: Stable identity of the sender (Flower node id).
        num_examples: Claimed number of training examples, already capped by intake.
        load: Returns the client's full weights (not the difference), key for key like the
            reference. Each call decodes anew; callers keep at most one state at a time.
    """

    client_id: int
    num_examples: float
    load: Callable[[], State]


@dataclass(frozen=True)
class Cohort:
    """The global weights of a round and the admitted client updates, in a fixed order."""

    round_number: int
    reference: State
    clients: tuple[ClientUpdate, ...]

    def __len__(self) -> int:
        return len(self.clients)
