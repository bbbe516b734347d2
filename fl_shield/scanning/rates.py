"""FAR, FRR and F2: how well triggered samples are told from clean ones (MBDS, section IV-F)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fl_shield.errors import ConfigurationError, expected


@dataclass(frozen=True)
class Rates:
    """Rates of a scanner.

    Attributes:
        far: False acceptance rate, share of the triggered samples that pass.
        frr: False rejection rate, share of the clean samples that are suspected.
    """

    far: float
    frr: float

    @property
    def accuracy(self) -> float:
        """Share of right verdicts where there are as many triggered samples as clean ones."""
        return 1.0 - (self.far + self.frr) / 2.0

    @property
    def f2(self) -> float:
        """F-measure with β = 2, where there are as many triggered samples as clean ones.

        >>> round(Rates(far=0.0060, frr=0.2534).f2, 3)  # MBDS, Table III: CIFAR-10, BadNets
        0.947
        """
        recall = 1.0 - self.far
        if recall == 0.0:
            return 0.0
        precision = recall / (recall + self.frr)
        return 5.0 * precision * recall / (4.0 * precision + recall)


def rates(suspected: ArrayLike, triggered: ArrayLike) -> Rates:
    """Return the rates of verdicts.

    Args:
        suspected: `(samples,)` verdicts.
        triggered: `(samples,)` truth; both kinds occur.

    Raises:
        ConfigurationError: if there is one kind only, or the lengths differ.

    >>> rates([True, False, True, False], [True, True, False, False])
    Rates(far=0.5, frr=0.5)
    """
    verdict, truth = np.asarray(suspected, dtype=bool), np.asarray(triggered, dtype=bool)
    if verdict.shape != truth.shape:
        raise ConfigurationError(
            expected("suspected", f"of shape {truth.shape}, as `triggered`", verdict.shape)
        )
    if not truth.any() or truth.all():
        raise ConfigurationError(expected("triggered", "both triggered and clean samples", "one"))
    return Rates(float((~verdict[truth]).mean()), float(verdict[~truth].mean()))
