"""The threshold of a scanner: a split-conformal quantile of clean scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

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


def with_room(limit: float, triggered: NDArray[np.float64], rate: float) -> float:
    """Return a threshold halfway to what triggered ones score above but for a share of them.

    Data sets differ: where there is room above the clean ones, it is shared. Where there is none,
    the threshold stays as it is.

    Args:
        limit: Threshold that clean ones keep to.
        triggered: Scores of triggered ones, any number of them.
        rate: The share that may lie below.
    """
    if not len(triggered):
        return limit
    return max(limit, (limit + float(np.quantile(triggered, rate))) / 2.0)
