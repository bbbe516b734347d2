"""FLTrust (Cao et al., NDSS 2021, section IV): agreement with the server's own update."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_shield.baselines.observed import Floats, Observed, products
from fl_shield.baselines.protocol import finite


def trust_scores(
    updates: NDArray[np.floating], norms: Floats, trusted: NDArray[np.floating]
) -> Floats:
    """Return TS_i = ReLU(cos(d_i, d_0)); 0 where either norm is zero.

    Args:
        updates: `(clients, parameters)`.
        norms: `(clients,)` their norms.
        trusted: `(parameters,)` the server's update d_0.
    """
    scale = norms * float(np.linalg.norm(trusted))
    dots = products(updates, trusted[None, :])[:, 0]
    cosine = np.divide(dots, scale, out=np.zeros_like(dots), where=scale > 0)
    return np.clip(cosine, 0.0, 1.0)


class FLTrustScore:
    """−ReLU(cos(d_i, d_0)), where the server trains d_0 on its probes as a client would."""

    name = "fltrust"

    def score(self, observed: Observed) -> Floats:
        """Return the negated trust scores `(clients,)`.

        Raises:
            ConfigurationError: if the server has no labelled probes to train on.
        """
        trust = trust_scores(observed.updates, observed.norms, observed.trusted_update)
        return finite(-trust)
