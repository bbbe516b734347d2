"""The untrained detector: a robust rule over a few extrapolated-probe descriptors.

It knows no attack and has no trained weights. Each *symptom* names a descriptor, the direction in
which poisoned updates move it, and a *unit*: the smallest spread that counts. A client's symptom is
its distance from the cohort's median, in units of the cohort's MAD or of that floor, whichever is
larger, limited to `CAP`; its score is the mean symptom minus an allowance. The floor is what keeps
a converged, quiet federation from accusing the client that differs by a hair: descriptors are
without dimension, so a difference under the unit does no harm worth a verdict.

Why these symptoms: an update that plants a backdoor teaches the model to answer "target" to inputs
that its honest features do not explain. Followed along its direction, it shrinks and flattens the
activations of clean inputs (`growth`, `spread_ratio`), turns them (`turn`), draws predictions to
one class (`concentration`, `flips`), serves one class row (`row_peak`) and does so with few, large
weights (`sparsity`). In text it moves the rows of its trigger tokens (`token_peak`).

Symptoms, units and limits were chosen by hand on MNIST (blended, sinusoidal, Jumbo and patch
triggers) and, for tokens, AG News federations. Federations on the digits of scikit-learn with a
patch were looked at on the way, so the demonstration on them is no blind test of the rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_shield.descriptors.table import DescriptorTable

CAP = 6.0
"""Largest single symptom: no descriptor alone decides."""

ALLOWANCE = 0.75
"""Mean symptom that honest clients may show; scores are positive above it."""

GAUSSIAN = 1.4826
"""MAD times this is the standard deviation of a normal sample."""


@dataclass(frozen=True)
class Symptom:
    """One descriptor the rule reads.

    Attributes:
        descriptor: Column name in the descriptor table.
        direction: +1 if backdoors raise it, -1 if they lower it.
        unit: Smallest spread over the cohort that counts, in the descriptor's own unit.
    """

    descriptor: str
    direction: int
    unit: float


RESPONSE_SYMPTOMS: tuple[Symptom, ...] = (
    Symptom("spread_ratio@raw/clean", -1, 0.25),
    Symptom("spread_ratio@1/clean", -1, 0.25),
    Symptom("spread_ratio@4/clean", -1, 0.70),
    Symptom("growth@raw/clean", -1, 0.12),
    Symptom("growth@1/clean", -1, 0.12),
    Symptom("turn@raw/clean", +1, 0.06),
    Symptom("concentration@raw/clean", +1, 0.06),
    Symptom("flips@raw/clean", +1, 0.08),
    Symptom("row_peak", +1, 0.08),
    Symptom("sparsity", -1, 0.03),
)
"""Symptoms of every model, image or text."""

TOKEN_SYMPTOMS: tuple[Symptom, ...] = (
    Symptom("token_peak", +1, 0.40),
    Symptom("token_top", +1, 0.30),
)
"""Symptoms that only models with a token embedding show."""


class RobustRule:
    """Scores clients by how far, and in how many ways, they differ from their cohort.

    Args:
        symptoms: What to read; those whose descriptor a table lacks are skipped.
        allowance: Mean symptom that honest clients may show.
    """

    name = "robust rule (untrained)"

    def __init__(
        self,
        symptoms: Sequence[Symptom] = RESPONSE_SYMPTOMS + TOKEN_SYMPTOMS,
        allowance: float = ALLOWANCE,
    ) -> None:
        self.symptoms = tuple(symptoms)
        self.allowance = allowance

    def __repr__(self) -> str:
        return f"RobustRule(symptoms={self.symptoms!r}, allowance={self.allowance!r})"

    @property
    def columns(self) -> tuple[str, ...]:
        """Descriptors that are read."""
        return tuple(symptom.descriptor for symptom in self.symptoms)

    def contributions(self, table: DescriptorTable) -> NDArray[np.float64]:
        """Return `(clients, descriptors)` symptoms, zero for columns the rule does not read."""
        parts = np.zeros_like(table.raw)
        for symptom in self._read(table):
            column = table.names.index(symptom.descriptor)
            values = table.raw[:, column]
            offset = values - np.median(values) if len(values) else values
            spread = GAUSSIAN * float(np.median(np.abs(offset))) if len(values) else 0.0
            z = symptom.direction * offset / max(spread, symptom.unit)
            parts[:, column] = np.clip(np.nan_to_num(z), -CAP, CAP)
        return parts

    def score(self, table: DescriptorTable) -> NDArray[np.float64]:
        """Return the scores `(clients,)`: mean symptom minus the allowance; finite."""
        read = self._read(table)
        total = self.contributions(table).sum(axis=1)
        return np.asarray(total / max(len(read), 1) - self.allowance, dtype=np.float64)

    def _read(self, table: DescriptorTable) -> list[Symptom]:
        return [symptom for symptom in self.symptoms if symptom.descriptor in table.names]
