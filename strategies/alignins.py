"""AlignIns: direction alignment of updates (Xu et al., CVPR 2025)."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from torch import nn

from fl_shield.baselines.alignins import (
    TOP_SHARE,
    median_z,
    principal_sign_alignment,
    temporal_alignment,
)
from fl_shield.baselines.observed import Observed
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.strategies.meta_shield import Probes
from fl_shield.strategies.rival import Plan, Rival, clip_factors, equal_weights


class AlignIns(Rival):
    """Keeps clients whose alignment with the model and with the principal signs is ordinary.

    Survivors are clipped to the median norm of the survivors and averaged equally.

    Args:
        strategy: What averages.
        model: The federated model.
        probes: Not used.
        max_direction: λ_c: limit of the MZ score of TDA.
        max_sign: λ_s: limit of the MZ score of MPSA.
        top_share: Share of the coordinates that count for MPSA.
        options: The keyword arguments of `Rival`.

    Raises:
        ConfigurationError: if a setting is impossible.
    """

    def __init__(
        self,
        strategy: Strategy,
        model: nn.Module,
        probes: Probes,
        *,
        max_direction: float = 1.0,
        max_sign: float = 1.0,
        top_share: float = TOP_SHARE,
        **options: Any,
    ) -> None:
        super().__init__(strategy, model, probes, **options)
        problems = [
            expected(name, "above 0", value)
            for name, value in (("max_direction", max_direction), ("max_sign", max_sign))
            if not value > 0
        ]
        if not 0 < top_share <= 1:
            problems.append(expected("top_share", "in (0, 1]", top_share))
        raise_all(problems, ConfigurationError)
        self.max_direction, self.max_sign, self.top_share = max_direction, max_sign, top_share

    def decide(self, observed: Observed) -> Plan:
        """Filter by both MZ scores, clip to the survivors' median norm."""
        direction = median_z(
            temporal_alignment(observed.updates, observed.norms, observed.reference)
        )
        sign = median_z(principal_sign_alignment(observed.updates, self.top_share))
        kept = (direction < self.max_direction) & (sign < self.max_sign)
        limit = float(np.median(observed.norms[kept])) if kept.any() else 0.0
        return Plan(
            equal_weights(kept), clip_factors(observed.norms, limit), np.maximum(direction, sign)
        )
