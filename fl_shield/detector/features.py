"""From descriptor tables to the detector's features: how far from the cohort, and in which place.

Four channels a column:

1. signed log of the robust z-score in the cohort, `(x − median) / (1.4826 · MAD + unit / 10)`;
2. signed log of `(x − median) / unit`, an *absolute* deviation: in a converged, quiet cohort a
   hair's difference is many MADs and still no harm;
3. 1 where the table has the column, else 0: image tables lack what only text has;
4. the rank in the cohort, from −1 for the lowest to 1 for the highest: who is the most extreme of
   twenty says the same on every task, however far that is.

The unit of a column is the typical spread (1.4826 · MAD) of benign clients in a round of training,
but no less than `WIDE_SHARE` of their typical standard deviation where they differ at all: a column
in which most clients are alike and a few are not has a MAD of zero.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from fl_shield.descriptors.plan import matches

CLIP = 1e6
"""Raw descriptors are limited to this size, so that every input gives finite features."""

GAUSSIAN = 1.4826
FLOOR_SHARE = 0.1
WIDE_SHARE = 0.3
MIN_UNIT = 1e-6

CHANNELS = 4
PRESENT = 2
"""The channel, counted from 0, that says that a column is there."""


class LabelledTable(Protocol):
    """What `fit_features` needs of an episode table."""

    @property
    def names(self) -> tuple[str, ...]:
        """Column names."""

    @property
    def raw(self) -> NDArray[np.float64]:
        """`(clients, descriptors)` values."""

    @property
    def malicious(self) -> NDArray[np.bool_]:
        """`(clients,)` truth."""


@dataclass(frozen=True)
class FeatureSpec:
    """Columns that a detector reads, and their units.

    Attributes:
        names: Column names, in the order of the features.
        units: Typical spread of each over the benign clients of a round.
    """

    names: tuple[str, ...]
    units: tuple[float, ...]

    @property
    def num_features(self) -> int:
        """Features of a client."""
        return CHANNELS * len(self.names)


def fit_features(tables: Sequence[LabelledTable], leave_out: Sequence[str] = ()) -> FeatureSpec:
    """Return the columns of the tables, sorted, with their units.

    Args:
        tables: Training rounds; columns may differ between them.
        leave_out: Columns that are not to be read, as in `*@10/*` or `*/jumbo`.
    """
    spreads: dict[str, list[float]] = defaultdict(list)
    widths: dict[str, list[float]] = defaultdict(list)
    for table in tables:
        benign = _limited(table.raw[~table.malicious])
        if not len(benign):
            continue
        spread = GAUSSIAN * np.median(np.abs(benign - np.median(benign, axis=0)), axis=0)
        width = benign.std(axis=0)
        for name, typical, wide in zip(table.names, spread.tolist(), width.tolist(), strict=True):
            spreads[name].append(typical)
            if wide > MIN_UNIT:
                widths[name].append(wide)
    names = tuple(sorted(name for name in spreads if not matches(name, leave_out)))
    return FeatureSpec(names, tuple(_unit(spreads[name], widths[name]) for name in names))


def features_of(
    spec: FeatureSpec, names: Sequence[str], raw: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the features `(clients, 4 · columns)` of a table; finite for every table.

    Args:
        spec: Columns and units.
        names: Columns of the table; those that `spec` does not know are ignored.
        raw: `(clients, descriptors)` values, NaN and infinities allowed.
    """
    into, values = _known(spec, names, raw)
    count = len(raw)
    present, rank = (np.zeros((count, len(spec.names))) for _ in range(2))
    if values.size:
        present[:, into] = 1.0
        rank[:, into] = (2.0 * rankdata(values, axis=0) - count - 1.0) / max(count - 1, 1)
    channels = [*_deviations(spec, into, values), present, rank]
    return np.concatenate(channels, axis=1).astype(np.float32)


def deviations_of(
    spec: FeatureSpec, names: Sequence[str], raw: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the first two channels, `(clients, 2 · columns)`; arguments as of `features_of`."""
    into, values = _known(spec, names, raw)
    return np.concatenate(_deviations(spec, into, values), axis=1).astype(np.float32)


def _known(
    spec: FeatureSpec, names: Sequence[str], raw: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the places in `spec` of the columns that it knows, and their limited values."""
    place = {name: column for column, name in enumerate(names)}
    into = np.array([k for k, name in enumerate(spec.names) if name in place], dtype=np.int64)
    return into, _limited(raw[:, [place[spec.names[k]] for k in into]])


def _deviations(
    spec: FeatureSpec, into: NDArray[np.int64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    relative, absolute = (np.zeros((len(values), len(spec.names))) for _ in range(2))
    if values.size:
        unit = np.array(spec.units)[into]
        offset = values - np.median(values, axis=0)
        spread = GAUSSIAN * np.median(np.abs(offset), axis=0)
        relative[:, into] = _signed_log(offset / (spread + FLOOR_SHARE * unit))
        absolute[:, into] = _signed_log(offset / unit)
    return relative, absolute


def _unit(spreads: Sequence[float], widths: Sequence[float]) -> float:
    wide = WIDE_SHARE * float(np.median(widths)) if widths else 0.0
    return max(float(np.median(spreads)), wide, MIN_UNIT)


def _limited(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    finite = np.nan_to_num(np.asarray(raw, dtype=np.float64), nan=0.0, posinf=CLIP, neginf=-CLIP)
    return np.clip(finite, -CLIP, CLIP)


def _signed_log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)), dtype=np.float64)
