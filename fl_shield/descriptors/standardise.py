"""Standardising descriptors across a cohort: robust z-scores, then a signed logarithm.

Median and median absolute deviation (MAD) are not moved by a minority of attackers; the signed
logarithm keeps a wild value wild without letting it drown the rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import median_abs_deviation

MAD_FLOOR = 1e-3
"""Share of a column's typical size under which its spread counts as no spread."""

CLIP = 1e6
"""Raw descriptors are limited to this size, so that every finite input stays finite."""


def standardise(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return signed-log robust z-scores of each column over the clients.

    `z = (x − median) / (1.4826 · MAD + floor)`, then `sign(z) · log(1 + |z|)`.

    Args:
        raw: `(clients, descriptors)`; NaN and infinities are treated as the column's median and as
            ±`CLIP`.

    Returns:
        `(clients, descriptors)`, finite; zeros where there is no spread or one client only.
    """
    values = np.clip(np.nan_to_num(raw, nan=np.nan, posinf=CLIP, neginf=-CLIP), -CLIP, CLIP)
    if values.shape[0] == 0:
        return values
    values[:, np.isnan(values).all(axis=0)] = 0.0
    centre = np.nanmedian(values, axis=0)
    values = np.where(np.isnan(values), centre, values)
    spread = median_abs_deviation(values, axis=0, scale="normal")
    floor = MAD_FLOOR * np.abs(values).mean(axis=0) + 1e-9
    z = (values - centre) / (spread + floor)
    return np.asarray(np.sign(z) * np.log1p(np.abs(z)), dtype=np.float64)
