"""Intake: what a client sends is admitted, or rejected with a reason; it never raises.

Nothing that arrives is trusted. Names, shapes, kinds of numbers and magnitudes of the arrays are
compared with the global model of the round, exactly and without broadcasting; the claimed number
of examples must be a positive finite number and is capped relative to the cohort. dtypes are *not*
compared: servers average integer counters into floats, so the dtypes of the global model drift
away from those that honest clients keep sending.

All limits are the constants below; each says why it is what it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

import numpy as np
from numpy.typing import NDArray

from fl_shield.cohort import ClientUpdate, State
from fl_shield.errors import ConfigurationError, expected

MAX_MAGNITUDE = 1e9
"""Largest absolute value of an array entry. Trained weights stay below 1e4 and running variances
of unscaled inputs below 1e6; the squares of a billion entries of 1e9 still sum within float32."""

MAGNITUDE_GROWTH = 1e3
"""Entries may also be as large as this multiple of the largest entry of the same global array, so
that counters and models that are legitimately large are not locked out."""

MAX_CLAIM_RATIO = 5.0
"""Largest claimed number of examples, as a multiple of the cohort's median claim. Sizes under
strong label skew (Dirichlet 0.1) rarely exceed it, and one liar among twenty then weighs at most
a fifth of an average."""

MAX_CLAIM = 1e12
"""Largest claimed number of examples whatever the cohort says: sums of claims stay finite."""

MAX_ITEM_BYTES = 8
"""Widest number: a 16-byte float would make the aggregate one, which no framework can load."""

KINDS = "fiub"
"""NumPy kinds of numbers that are admitted: floating, signed, unsigned, boolean."""

UNCHANGED_NORM = 1e-12
"""An update shorter than this is none. Only asked for where a later step divides by the norm."""

MAX_SHOWN = 60
"""Characters of client-controlled text that are shown in logs and audit lines."""


class RejectionReason(StrEnum):
    """Why a reply was not admitted."""

    ERROR_REPLY = "error-reply"
    UNREADABLE = "unreadable"
    UNEXPECTED_SENDER = "unexpected-sender"
    LATE = "late"
    DUPLICATE = "duplicate"
    RECORDS = "records"
    METRICS = "metrics"
    KEYS = "keys"
    SHAPE = "shape"
    DTYPE = "dtype"
    NOT_FINITE = "not-finite"
    MAGNITUDE = "magnitude"
    NUM_EXAMPLES = "num-examples"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Rejection:
    """A reply that was not admitted.

    Attributes:
        client_id: Flower node id of the sender.
        reason: The kind of fault.
        detail: One sentence for a person; text that the client controls is quoted and cut.
    """

    client_id: int
    reason: RejectionReason
    detail: str

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.detail}"


class Intake:
    """Admits or rejects the decoded arrays and the claims of one round.

    Args:
        reference: Global weights sent out this round.
        reject_unchanged: Also reject updates of norm zero, for aggregators that divide by it.
        max_magnitude: See `MAX_MAGNITUDE`.
        max_claim_ratio: See `MAX_CLAIM_RATIO`.

    Raises:
        ConfigurationError: if a limit is out of range.
    """

    def __init__(
        self,
        reference: State,
        *,
        reject_unchanged: bool = False,
        max_magnitude: float = MAX_MAGNITUDE,
        max_claim_ratio: float = MAX_CLAIM_RATIO,
    ) -> None:
        if not max_magnitude > 0:
            raise ConfigurationError(expected("max_magnitude", "positive", max_magnitude))
        if not max_claim_ratio >= 1:
            raise ConfigurationError(expected("max_claim_ratio", "at least 1", max_claim_ratio))
        self._reference = reference
        self._reject_unchanged = reject_unchanged
        self._max_claim_ratio = max_claim_ratio
        self._limits = {
            name: max(max_magnitude, MAGNITUDE_GROWTH * _largest(array))
            for name, array in reference.items()
        }

    def admit(
        self,
        client_id: int,
        names: Collection[str],
        load: Callable[[], State],
        claim: object,
    ) -> ClientUpdate | Rejection:
        """Return the client's update, or why it is rejected.

        Args:
            client_id: Flower node id of the sender.
            names: Names of the arrays that were sent.
            load: Decodes the arrays; called once here, and may raise anything.
            claim: Claimed number of examples, of whatever type was sent.
        """
        fault = self._check_names(names)
        if fault is None:
            fault = check_claim(claim)
        if fault is None:
            try:
                state = load()
            except Exception as error:  # the bytes are hostile: any failure is the client's
                text = f"its arrays cannot be decoded ({type(error).__name__}: {quote(error)})."
                fault = RejectionReason.UNREADABLE, text
            else:
                fault = self._check_state(state)
        if fault is not None:
            return Rejection(client_id, *fault)
        assert isinstance(claim, int | float)
        return ClientUpdate(client_id, float(claim), load)

    def cap_claims(self, claims: Mapping[int, float]) -> dict[int, float]:
        """Return the claims of the admitted clients, none above the cap of this cohort."""
        return cap_claims(claims, self._max_claim_ratio)

    def _check_names(self, names: Collection[str]) -> Fault | None:
        missing = [name for name in self._reference if name not in names]
        extra = [name for name in names if name not in self._reference]
        if not missing and not extra:
            return None
        parts = [
            f"{len(found)} {kind} ({quote(found[0])}{', …' if len(found) > 1 else ''})"
            for kind, found in (("missing", missing), ("unknown", extra))
            if found
        ]
        return RejectionReason.KEYS, f"its array names differ from the model: {', '.join(parts)}."

    def _check_state(self, state: State) -> Fault | None:
        for name, reference in self._reference.items():
            fault = _check_array(name, state.get(name), reference.shape, self._limits[name])
            if fault is not None:
                return fault
        if self._reject_unchanged and self._distance(state) < UNCHANGED_NORM:
            return (
                RejectionReason.UNCHANGED,
                "it sent the global model back unchanged, which norm clipping cannot divide by.",
            )
        return None

    def _distance(self, state: State) -> float:
        total = 0.0
        for name, reference in self._reference.items():
            difference = state[name].astype(np.float64) - reference.astype(np.float64)
            total += float(np.vdot(difference, difference))
        return math.sqrt(total)


Fault = tuple[RejectionReason, str]


def check_claim(claim: object) -> Fault | None:
    """Return what is wrong with a claimed number of examples, None if nothing is."""
    if claim is None:
        return RejectionReason.NUM_EXAMPLES, "it did not say how many examples it trained on."
    if isinstance(claim, bool) or not isinstance(claim, int | float):
        kind = type(claim).__name__
        return RejectionReason.NUM_EXAMPLES, f"its number of examples is a {kind}, not a number."
    value = as_float(claim)
    if value is None or not math.isfinite(value) or value <= 0:
        return (
            RejectionReason.NUM_EXAMPLES,
            f"its number of examples is {quote(claim)}, not a positive finite number.",
        )
    return None


def cap_claims(
    claims: Mapping[int, float], max_claim_ratio: float = MAX_CLAIM_RATIO
) -> dict[int, float]:
    """Return claims by client, none above `max_claim_ratio` times their median."""
    if not claims:
        return {}
    # The lower median, because an attacker who is half of a cohort of two must not set its own cap.
    ordered = sorted(claims.values())
    middle = ordered[(len(ordered) - 1) // 2] if len(ordered) < 3 else median(ordered)
    cap = min(max_claim_ratio * middle, MAX_CLAIM)
    return {client: min(claim, cap) for client, claim in claims.items()}


def as_float(number: int | float) -> float | None:
    """Return a number as a float, None if it is an integer too large for one."""
    try:
        return float(number)
    except OverflowError:
        return None


def quote(value: object) -> str:
    """Return client-controlled text on one line, quoted and cut to `MAX_SHOWN` characters."""
    if isinstance(value, int) and abs(value) >= 10**18:
        return "an integer beyond 10^18"  # printing it could itself raise or take minutes
    text = repr(str(value)[: 4 * MAX_SHOWN]) if not isinstance(value, int | float) else str(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def _check_array(name: str, array: object, shape: tuple[int, ...], limit: float) -> Fault | None:
    if not isinstance(array, np.ndarray):
        return RejectionReason.UNREADABLE, f"array {quote(name)} is not an array of numbers."
    if array.shape != shape:
        detail = f"array {quote(name)} has shape {quote(array.shape)}, the model {shape}."
        return RejectionReason.SHAPE, detail
    if array.dtype.kind not in KINDS or array.dtype.itemsize > MAX_ITEM_BYTES:
        detail = f"array {quote(name)} holds {quote(array.dtype)}, not plain numbers."
        return RejectionReason.DTYPE, detail
    largest = _largest(array)
    if not math.isfinite(largest):
        return RejectionReason.NOT_FINITE, f"array {quote(name)} holds NaN or infinite values."
    if largest > limit:
        detail = f"array {quote(name)} holds a value of size {largest:.3g}, above {limit:.3g}."
        return RejectionReason.MAGNITUDE, detail
    return None


def _largest(array: NDArray[np.generic]) -> float:
    """Return the largest absolute value, NaN if there is a NaN; no copy of the array is made."""
    if array.size == 0:
        return 0.0
    return float(np.maximum(abs(float(np.min(array))), abs(float(np.max(array)))))
