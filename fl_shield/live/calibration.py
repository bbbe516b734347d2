"""The live calibration: where to put the threshold, from honest shadows on the live model.

Split-conformal (Vovk et al., *Algorithmic Learning in a Random World*, 2005, section 2.2): of n
scores of honest shadows, a further one exceeds the ⌈(n + 1) · (1 − rate)⌉-th smallest with at most
that rate. This holds for *shadows*; for clients as far as they resemble them. No score of a client
ever enters, so that no client can move the threshold by its score.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import numpy as np

from fl_shield.conformal import conformal_quantile, fewest_scores, just_above
from fl_shield.errors import StateError

KEPT = 2
"""Scores that are kept, in multiples of the fewest: older ones are of an older model."""


class LiveCalibration:
    """Gathers the scores of honest shadows, and says by how much clients' scores are to be shifted.

    Args:
        false_alarms: Share of honest updates that may be flagged, between 0 and 1.
        distinct: How many shadows can differ at all; see `Material.distinct`.
        threshold: Score from which a client is flagged.
    """

    def __init__(self, false_alarms: float, distinct: int, threshold: float) -> None:
        self.false_alarms, self.threshold = false_alarms, threshold
        self.needed = fewest_scores(false_alarms)
        self.distinct = distinct
        self._scores: deque[float] = deque(maxlen=KEPT * self.needed)

    def __len__(self) -> int:
        return len(self._scores)

    @property
    def obstacle(self) -> str:
        """Why the clean samples do not suffice for the rate, or nothing."""
        if self.distinct >= self.needed:
            return ""
        return (
            f"The clean samples make at most {self.distinct} different honest shadows, and a false "
            f"positive rate of {self.false_alarms:g} needs {self.needed}: the detector keeps its "
            "own calibration. Hold more clean samples, or ask for a higher rate."
        )

    def add(self, scores: Iterable[float]) -> None:
        """Take in the scores of further honest shadows; those that are not finite are left out."""
        self._scores.extend(score for score in scores if math.isfinite(score))

    @property
    def shift(self) -> float | None:
        """What to subtract from scores so that the threshold keeps to the rate; None if unknown."""
        if self.obstacle:
            return None
        ordered = np.sort(np.array(self._scores, dtype=np.float64))
        quantile = conformal_quantile(ordered, self.false_alarms)
        if quantile is None:
            return None
        return just_above(quantile) - self.threshold

    def state_dict(self) -> list[float]:
        """Return the scores, oldest first, JSON-ready."""
        return list(self._scores)

    def load_state_dict(self, scores: object) -> None:
        """Go on from saved scores.

        Raises:
            StateError: if they are no finite numbers.
        """
        numbers = isinstance(scores, list) and all(
            isinstance(score, int | float) and math.isfinite(score) for score in scores
        )
        if not numbers:
            raise StateError("The saved scores of the server's shadows cannot be read.")
        self._scores.clear()
        self._scores.extend(float(score) for score in scores)  # type: ignore[attr-defined]
