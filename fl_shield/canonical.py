"""The form in which a client's numbers are judged and aggregated, whatever form it sent them in.

Aggregation rules take the dtype of the first reply for the whole sum: one client that sends half
precision would round everybody's weights, and overflow them beyond 65504. Byte orders other than
the machine's, and integers where weights stand, are what frameworks refuse to load.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FULL_PRECISION = 4
"""Bytes of a number that no aggregate needs more than: single precision is left as it is."""


def canonical_dtype(sent: np.dtype[Any], reference: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype for an array that was sent as `sent` where the global model has `reference`.

    Native byte order always. Where the model has floating numbers, floating numbers at least as
    wide as its own, or as single precision: global models drift to double precision under server
    optimisers, and clients that keep sending single precision stay as they are. Half precision
    where the model has integers (an averaged counter) becomes double precision.
    """
    native = sent.newbyteorder("=")
    if reference.kind == "f":
        is_narrow = native.itemsize < min(reference.itemsize, FULL_PRECISION)
        return reference.newbyteorder("=") if native.kind != "f" or is_narrow else native
    if native.kind == "f" and native.itemsize < FULL_PRECISION:
        return np.dtype(np.float64)
    return native


def canonical(array: NDArray[np.generic], reference: np.dtype[Any]) -> NDArray[np.generic]:
    """Return an array in its canonical dtype; the same object where it has that already."""
    dtype = canonical_dtype(array.dtype, reference)
    with np.errstate(over="ignore"):  # what overflows is infinite, and rejected as such
        return array.astype(dtype, copy=False)
