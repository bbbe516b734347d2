"""Update norm: the distance of an update's length to the cohort's median length.

Norm clipping (Sun et al., "Can You Really Backdoor Federated Learning?", 2019) rests on the norm
alone. As a statistic it is |‖d_i‖ − median_j ‖d_j‖|, in the units of the weights.
"""

from __future__ import annotations

import numpy as np

from fl_shield.baselines.observed import Floats, Observed
from fl_shield.baselines.protocol import finite


class NormDistance:
    """|‖d_i‖ − median ‖d‖|."""

    name = "norm"

    def score(self, observed: Observed) -> Floats:
        """Return the distances to the median norm `(clients,)`."""
        if not len(observed):
            return np.zeros(0)
        return finite(np.abs(observed.norms - np.median(observed.norms)))
