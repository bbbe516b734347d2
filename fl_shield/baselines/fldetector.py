"""FLDetector's prediction (Zhang et al., KDD 2022): L-BFGS Hessian-vector products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fl_shield.baselines.observed import Floats


def hessian_product(
    steps: Sequence[NDArray[np.floating]],
    changes: Sequence[NDArray[np.floating]],
    vector: NDArray[np.floating],
) -> Floats:
    """Return B · vector, B the L-BFGS approximation of the Hessian in compact form.

    Byrd, Nocedal and Schnabel (1994), theorem 2.3, with B_0 = σI, σ = yᵀs / sᵀs of the last pair;
    so that B · s = y holds for that pair. Zeros where there are no pairs, or the last is zero.

    Args:
        steps: Differences of global models s, oldest first, `(parameters,)` each.
        changes: Differences of average updates y over the same rounds.
        vector: `(parameters,)`.
    """
    v = np.asarray(vector, dtype=np.float64)
    if not steps:
        return np.zeros_like(v)
    s = np.stack([np.asarray(step, dtype=np.float64) for step in steps])
    y = np.stack([np.asarray(change, dtype=np.float64) for change in changes])
    square = float(s[-1] @ s[-1])
    if square <= 0.0:
        return np.zeros_like(v)
    sigma = float(y[-1] @ s[-1]) / square
    sy = s @ y.T
    lower = np.tril(sy, -1)
    middle = np.block([[sigma * (s @ s.T), lower], [lower.T, -np.diag(np.diag(sy))]])
    right = np.concatenate([sigma * (s @ v), y @ v])
    # Steps that repeat make the middle matrix singular; least squares then takes the shortest.
    solution = np.linalg.lstsq(middle, right, rcond=None)[0]
    count = len(steps)
    result = sigma * v - sigma * (solution[:count] @ s) - solution[count:] @ y
    return np.asarray(np.nan_to_num(result, nan=0.0, posinf=0.0, neginf=0.0))
