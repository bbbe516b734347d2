"""Rehearsals: the detector is tried on the server's own shadows before it judges clients.

A rehearsal describes and scores honest and poisoned shadows, and nobody else. The scores of the
honest ones calibrate the detector to the live model, those of the poisoned ones say what it would
see. A round with too few clients to compare is filled up with honest shadows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fl_shield.cohort import Cohort
from fl_shield.descriptors.table import DescriptorTable
from fl_shield.detector.protocol import Detector
from fl_shield.errors import StateError
from fl_shield.judge.verdict import Decision, Verdict
from fl_shield.live.calibration import LiveCalibration
from fl_shield.live.server_shadows import ServerShadows

log = logging.getLogger("flwr.fl_shield")


class Describer(Protocol):
    """What is needed of `fl_shield.inspection.Inspector`."""

    def describe(self, cohort: Cohort) -> DescriptorTable:
        """Return one row of descriptors a client, in the cohort's order."""
        ...


@dataclass(frozen=True)
class Scored:
    """The clients of a round, described and scored.

    Attributes:
        table: Descriptors of the clients, shadows left out.
        scores: `(clients,)` log-odds.
        contributions: `(clients, descriptors)` parts of the scores.
        others: Honest shadows among which the clients were judged.
    """

    table: DescriptorTable
    scores: NDArray[np.float64]
    contributions: NDArray[np.float64]
    others: int = 0


def score(inspector: Describer, detector: Detector, cohort: Cohort) -> Scored:
    """Return the clients of a cohort, described and scored among themselves."""
    table = inspector.describe(cohort)
    return Scored(table, detector.score(table), detector.contributions(table))


class Rehearsal:
    """Keeps the server's shadows up to date with the global model, and lends them to small rounds.

    Args:
        shadows: Simulates the clients.
        threshold: Score from which a client is flagged.

    Attributes:
        power: Poisoned shadows that the detector saw in the last rehearsal, and how many there
            were; None before the first.
    """

    def __init__(self, shadows: ServerShadows, threshold: float) -> None:
        self.shadows, self.threshold = shadows, threshold
        rate = shadows.settings.false_alarms
        distinct = shadows.material.distinct
        self.calibration = None if rate is None else LiveCalibration(rate, distinct, threshold)
        self.power: tuple[int, int] | None = None
        self._last_round: int | None = None
        if self.calibration is not None and self.calibration.obstacle:
            log.warning("%s", self.calibration.obstacle)

    @property
    def shift(self) -> float:
        """What is subtracted from the scores of a full round; 0 as long as nothing is known.

        In a round that was filled up with shadows it is never less than 0.
        """
        shift = None if self.calibration is None else self.calibration.shift
        return 0.0 if shift is None else shift

    def hold(self, inspector: Describer, detector: Detector, cohort: Cohort) -> None:
        """Try the detector on shadows of this round's global model, if that is due.

        Args:
            inspector: Describes updates.
            detector: Scores them.
            cohort: The round's; only its reference and the norms of its updates are used.
        """
        number, settings = cohort.round_number, self.shadows.settings
        is_due = self._last_round is None or number >= self._last_round + settings.every
        is_used = self.calibration is not None and not self.calibration.obstacle
        if not (is_due and (is_used or settings.poisoned)):
            return
        self._last_round = number
        honest, poisoned = self.try_out(inspector, detector, cohort)
        if self.calibration is not None:
            self.calibration.add(honest.tolist())
        seen = int((poisoned - self.shift >= self.threshold).sum())
        self.power = (seen, len(poisoned)) if len(poisoned) else None
        self._report(number)

    def try_out(
        self, inspector: Describer, detector: Detector, cohort: Cohort
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the scores of honest and of poisoned shadows, judged together and by themselves.

        Args:
            inspector: Describes updates.
            detector: Scores them.
            cohort: The round's; only its reference and the norms of its updates are used.
        """
        number, reference = cohort.round_number, cohort.reference
        norms = self.shadows.norms(cohort)
        honest = self.shadows.benign(number, reference, norms)
        bad = self.shadows.poisoned(number, reference, norms)
        table = inspector.describe(replace(cohort, clients=(*honest, *bad)))
        scores = np.asarray(detector.score(table), dtype=np.float64)
        return scores[: len(honest)], scores[len(honest) :]

    def score(
        self, inspector: Describer, detector: Detector, cohort: Cohort, min_clients: int
    ) -> Scored:
        """Return the clients of a round, described and scored: among shadows if they are few.

        Args:
            inspector: Describes updates.
            detector: Scores them.
            cohort: The round's; it is left as it is.
            min_clients: Fewest clients that are judged among themselves.
        """
        try:
            self.hold(inspector, detector, cohort)
        except Exception:  # the shadows are a help; without them the round is judged as ever
            log.exception("\t> The server's shadows failed; the last calibration stays.")
        if len(cohort) >= min_clients:
            found = score(inspector, detector, cohort)
            return replace(found, scores=found.scores - self.shift)
        others = self.shadows.benign(
            cohort.round_number, cohort.reference, self.shadows.norms(cohort)
        )
        found = score(inspector, detector, replace(cohort, clients=(*cohort.clients, *others)))
        own = slice(len(cohort))
        table = DescriptorTable(
            found.table.names, found.table.raw[own], found.table.standardised[own]
        )
        # A client is no shadow: the live threshold may spare it, not condemn it.
        scores = found.scores[own] - max(self.shift, 0.0)
        return Scored(table, scores, found.contributions[own], len(others))

    def remarked(self, verdicts: Sequence[Verdict], found: Scored) -> list[Verdict]:
        """Return the verdicts, with a word on the shadows where they had a part in them.

        That is every verdict of a round that was filled up; and, with what the detector would see
        of poisoned shadows, every verdict but to keep.
        """
        return [replace(v, detail=self._detail(v, found.others)) for v in verdicts]

    def metrics(self) -> dict[str, float]:
        """Return the round's metrics: the share of poisoned shadows that the detector would see."""
        return {} if self.power is None else {"shield-power": self.power[0] / self.power[1]}

    def _detail(self, verdict: Verdict, others: int) -> str:
        parts = [verdict.detail] if verdict.detail else []
        if others:
            parts.append(f"judged among {others} shadows of the server.")
        if self.power is not None and (others or verdict.decision is not Decision.KEEP):
            seen, count = self.power
            parts.append(f"the detector would see {seen} of {count} poisoned shadows.")
        return " ".join(parts)

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive a restart, JSON-ready."""
        return {} if self.calibration is None else {"scores": self.calibration.state_dict()}

    def load_state_dict(self, state: object) -> None:
        """Go on from a saved `state_dict`; one without scores starts anew.

        Raises:
            StateError: if it cannot be read.
        """
        if not isinstance(state, dict):
            raise StateError("The saved state of the server's shadows cannot be read.")
        if self.calibration is not None and "scores" in state:
            self.calibration.load_state_dict(state["scores"])

    def _report(self, number: int) -> None:
        if self.power is not None:
            seen, count = self.power
            log.info(
                "shield: round %d: the detector would see %d of %d poisoned shadows",
                number, seen, count,
            )  # fmt: skip
        calibration = self.calibration
        if calibration is None or calibration.obstacle:
            return
        if calibration.shift is None:
            log.info(
                "\t> %d of the %d honest shadows for a live calibration are there; until then the "
                "detector's own is used.",
                len(calibration), calibration.needed,
            )  # fmt: skip
        else:
            log.info(
                "\t> Live calibration on %d honest shadows: scores shifted by %+.2f.",
                len(calibration), -calibration.shift,
            )  # fmt: skip
