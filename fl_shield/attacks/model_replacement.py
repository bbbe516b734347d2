"""Model replacement: the update is boosted so that it survives averaging."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fl_shield.attacks.model_poisoning import NoModelPoisoning, Parameters, movable
from fl_shield.errors import expected, raise_all


@dataclass(frozen=True)
class ModelReplacement(NoModelPoisoning):
    """Sends `G + boost · (W' - G)` (Bagdasaryan et al., How To Backdoor FL, 2020, eq. 3).

    Attributes:
        boost: Factor of the update; the number of clients replaces the model outright.

    Raises:
        ConfigurationError: if `boost` is not positive.
    """

    boost: float = 5.0

    def __post_init__(self) -> None:
        """Check the factor."""
        if not self.boost > 0:
            raise_all([expected("model_poisoning.boost", "above 0", self.boost)])

    def __str__(self) -> str:
        return f"boosted x{self.boost:g}"

    def craft(self, reference: Parameters, trained: Parameters) -> dict[str, Tensor]:
        """Return the boosted parameters."""
        crafted = dict(trained)
        for name in movable(trained):
            crafted[name] = reference[name] + self.boost * (trained[name] - reference[name])
        return crafted
