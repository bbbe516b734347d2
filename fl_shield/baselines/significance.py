"""Is there somebody else among these values? The tests of CrowdGuard and MESAS, by one author.

Both ask of a number a client whether the clients above the median lie around it as those below do,
by mean, variance and distribution of the distances to it, and whether single ones lie far out.
Where that is so, the values are cut at their widest gap and the side of the median is kept.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from fl_shield.baselines.observed import Floats

LEVEL = 0.01
"""Level of significance of each test."""


def differs(values: Floats, *, sigmas: float = 3.0, whiskers: float | None = None) -> bool:
    """Return whether any test finds the values of more than one kind.

    Of the distances to the median, those of values at least the median are compared with those of
    values below: Student's t-test, Levene's and the Kolmogorov-Smirnov test. Single values are
    judged by their z-score and, if asked for, by the whiskers of a box plot.

    Args:
        values: `(n,)`; fewer than three are of one kind.
        sigmas: z-score that makes an outlier.
        whiskers: Interquartile ranges beyond the quartiles that make an outlier; None for no limit.
    """
    from scipy import stats

    if len(values) < 3:
        return False
    spread = float(values.std())
    if spread <= 1e-12 * max(float(np.abs(values).max()), 1e-300):
        return False
    if float(np.abs(values - values.mean()).max()) >= sigmas * spread:
        return True
    if whiskers is not None:
        low, high = np.quantile(values, [0.25, 0.75])
        reach = whiskers * (high - low)
        if bool(((values < low - reach) | (values > high + reach)).any()):
            return True
    median = float(np.median(values))
    above, below = values[values >= median] - median, median - values[values < median]
    if min(len(above), len(below)) < 2:
        return False
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # equal distances have no variance to compare: p is NaN
        chances = [
            stats.ttest_ind(above, below).pvalue,
            stats.levene(above, below).pvalue,
            stats.ks_2samp(above, below).pvalue,
        ]
    return any(float(chance) < LEVEL for chance in chances)


def beyond_the_gap(values: Floats, centre: float) -> NDArray[np.bool_]:
    """Return who is in the other one of two single-linkage clusters than the centre, `(n,)`.

    In one dimension single linkage cuts at the widest gap; the centre counts as a value.

    Args:
        values: `(n,)`.
        centre: Usually the median.
    """
    points = np.append(values, centre)
    order = np.argsort(points, kind="stable")
    gaps = np.diff(points[order])
    if not len(gaps) or float(gaps.max()) <= 0.0:
        return np.zeros(len(values), dtype=np.bool_)
    upper = np.zeros(len(points), dtype=np.bool_)
    upper[order[int(gaps.argmax()) + 1 :]] = True
    return np.asarray(upper[:-1] != upper[-1])
