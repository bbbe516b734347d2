"""The threshold of a scanner: a split-conformal quantile of clean scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fl_shield.conformal import conformal_quantile, fewest_scores
from fl_shield.errors import ConfigurationError, expected


def conformal_threshold(
    clean_scores: ArrayLike, false_alarms: float, what: str = "clean samples"
) -> float:
    """Return the score that a further clean sample exceeds with at most this probability.

    Of n scores, the ⌈(n + 1) · (1 − false alarms)⌉-th smallest (Vovk et al., *Algorithmic Learning
    in a Random World*, 2005, section 2.2). It holds where the scored samples and the further ones
    are exchangeable, and the scanner was not fitted to the scored ones.

    Args:
        clean_scores: `(n,)` scores of clean samples, or models.
        false_alarms: Share of the clean that may be suspected, between 0 and 1.
        what: What the scores are of, for messages.

    Raises:
        ConfigurationError: if there are too few scores for that share, or one is not finite.

    >>> conformal_threshold([3.0, 1.0, 2.0, 4.0], 0.2)
    4.0
    >>> conformal_threshold([3.0, 1.0, 2.0, 4.0], 0.4)
    3.0
    """
    values = np.sort(np.asarray(clean_scores, dtype=np.float64).ravel())
    if not 0.0 < false_alarms < 1.0:
        raise ConfigurationError(expected("false_alarms", "between 0 and 1", false_alarms))
    if not np.isfinite(values).all():
        raise ConfigurationError(expected("clean_scores", "finite", "NaN or infinite values"))
    quantile = conformal_quantile(values, false_alarms)
    if quantile is None:
        raise ConfigurationError(
            f"Expected at least {fewest_scores(false_alarms)} {what} to calibrate on for a "
            f"false-alarm rate of {false_alarms:g}, got {len(values)}. Give more, or raise "
            f"false_alarms to {1.0 / (len(values) + 1):.3g}."
        )
    return quantile
