"""Sign flip: an untargeted attack that pulls the model back, as a check of sanity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from fl_shield.attacks.model_poisoning import Knowledge, NoModelPoisoning, Parameters, movable
from fl_shield.errors import expected, raise_all


@dataclass(frozen=True)
class SignFlip(NoModelPoisoning):
    """Sends `G - boost · (W - G)`, W trained honestly (Li et al., RSA, AAAI 2019).

    The attacker knows the model that it received and its own samples; what it trains on poisoned
    ones is thrown away.

    Attributes:
        boost: Factor of the turned update; 1 keeps its length.
        honest: Parameters of an honest training; learned when a local training begins.

    Raises:
        ConfigurationError: if `boost` is not positive.
    """

    boost: float = 4.0
    honest: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the factor."""
        if not self.boost > 0:
            raise_all([expected("model_poisoning.boost", "above 0", self.boost)])

    def __str__(self) -> str:
        return f"sign flip x{self.boost:g}"

    def begin(self, model: nn.Module, knowledge: Knowledge) -> SignFlip:
        """Return the attack with the update to turn."""
        return replace(self, honest=knowledge.train_benign(0))

    def craft(self, reference: Parameters, trained: Parameters) -> dict[str, Tensor]:
        """Return the turned update of the honest training (of `trained`, where there was none)."""
        crafted = dict(trained)
        for name in movable(trained):
            own = self.honest.get(name, trained[name])
            crafted[name] = reference[name] - self.boost * (own - reference[name])
        return crafted
