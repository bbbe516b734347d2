"""The server's shadows: honest and poisoned client updates that it simulates for itself.

Nobody but the server ever sees them: they stand in no aggregate, no verdict and no message.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fl_shield.cohort import ClientUpdate, Cohort, State
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.judge.rescale import update_norms
from fl_shield.live.material import Material
from fl_shield.live.poison import modality_spec, poisoned
from fl_shield.live.stride import train_to
from fl_shield.models.state import Arrays
from fl_shield.probes.probe_set import ProbeSet

JITTER = 0.25
"""Standard deviation of the log of a shadow's norm around that of a client."""

KEPT_BYTES = 1 << 26
"""Shadows of a round that fit into so much memory are trained once, others each time they are
read."""

STILL = 0.01
"""Norm of a shadow relative to the model's own, in a round in which no client moved."""


@dataclass(frozen=True, kw_only=True)
class ShadowSettings:
    """How many shadows a server makes, how often, and what for.

    Attributes:
        benign: Honest shadows of a round.
        poisoned: Poisoned shadows, by which the detector's power is estimated; fewer than half
            of the honest ones, 0 for none.
        every: Rounds after which the shadows are made anew.
        false_alarms: Share of honest updates that may be flagged, for the live calibration; None
            leaves the detector's own calibration.
        seed: Everything random follows from it, from the round and from the global model.

    Raises:
        ConfigurationError: naming every setting that is out of range.
    """

    benign: int = 11
    poisoned: int = 4
    every: int = 1
    false_alarms: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check all settings at once."""
        problems = []
        if self.benign < 3:
            problems.append(expected("shadows.benign", "3 or more", self.benign))
        if not 0 <= self.poisoned <= max(self.benign, 0) / 2:
            problems.append(
                expected("shadows.poisoned", "0 to half of shadows.benign", self.poisoned)
            )
        if self.every < 1:
            problems.append(expected("shadows.every", "1 round or more", self.every))
        if self.false_alarms is not None and not 0.0 < self.false_alarms < 1.0:
            problems.append(
                expected("shadows.false_alarms", "between 0 and 1, or None", self.false_alarms)
            )
        raise_all(problems, ConfigurationError)


class ServerShadows:
    """Simulates clients on the server's clean samples and the live global model.

    Weights are trained when they are asked for. Those of small models are kept for the round, up to
    `KEPT_BYTES`; beyond that they are forgotten and trained again, so that memory is that of a few
    models, whatever the number of shadows.

    Args:
        model: The federated model; a private copy is used.
        probes: The server's clean samples, with labels; the first 64 are learned from.
        settings: How many, how often; the defaults when None.
        device: Where shadows train; None keeps the model's device.

    Raises:
        ConfigurationError: if the probes are unlabelled or called by several names, or if there is
            no trigger for their kind.
    """

    def __init__(
        self,
        model: nn.Module,
        probes: ProbeSet,
        settings: ShadowSettings | None = None,
        *,
        device: str | torch.device | None = None,
    ) -> None:
        self.settings = settings or ShadowSettings()
        self.material = Material.of(probes)
        self._model = copy.deepcopy(model).float()
        if device is not None:
            self._model.to(device)
        place = next((p.device for p in self._model.parameters()), torch.device("cpu"))
        with torch.no_grad():
            classes = int(self._model.eval()(self.material.inputs[:2].to(place)).shape[-1])
        ProbeSet(self.material.inputs, self.material.labels, classes)  # labels must fit the model
        self._spec = modality_spec(self.material.inputs, classes)
        if self._spec is None and self.settings.poisoned:
            raise ConfigurationError(
                expected(
                    "shadows.poisoned", "0, as triggers are drawn for images and texts only",
                    self.settings.poisoned,
                )
            )  # fmt: skip
        self._parameters = frozenset(
            name for name, _ in self._model.named_parameters(remove_duplicate=False)
        )
        self._kept: dict[int, Arrays] = {}
        self._kept_of: tuple[int, State, Sequence[float]] | None = None

    def norms(self, cohort: Cohort) -> list[float]:
        """Return the L2 norms of the clients' updates, weights read one client at a time."""
        return [
            update_norms(client.load(), cohort.reference, self._parameters).parameters
            for client in cohort.clients
        ]

    def benign(
        self, round_number: int, reference: State, norms: Sequence[float]
    ) -> tuple[ClientUpdate, ...]:
        """Return the honest shadows of a round, under ids below 0, which no node has.

        Args:
            round_number: Round, counted from 1; with the seed it decides every draw.
            reference: The global weights.
            norms: L2 norms of the clients' updates, which the shadows' resemble.
        """
        count = self.settings.benign
        return self._updates(round_number, reference, norms, range(count), is_poisoned=False)

    def poisoned(
        self, round_number: int, reference: State, norms: Sequence[float]
    ) -> tuple[ClientUpdate, ...]:
        """Return the poisoned shadows of a round; the arguments are those of `benign`."""
        first = self.settings.benign
        numbers = range(first, first + self.settings.poisoned)
        return self._updates(round_number, reference, norms, numbers, is_poisoned=True)

    def _updates(
        self,
        round_number: int,
        reference: State,
        norms: Sequence[float],
        numbers: range,
        *,
        is_poisoned: bool,
    ) -> tuple[ClientUpdate, ...]:
        usual = [norm for norm in norms if norm > 0.0]
        if not usual:
            zero = {name: np.zeros_like(array) for name, array in reference.items()}
            usual = [STILL * update_norms(reference, zero, self._parameters).parameters]

        def shadow(number: int) -> ClientUpdate:
            def load() -> Arrays:
                kept = self._kept_for(round_number, reference, usual)
                if number in kept:
                    return kept[number]
                rng = np.random.default_rng([self.settings.seed, round_number, number])
                trained = self._train(reference, usual, rng, is_poisoned=is_poisoned)
                size = sum(array.nbytes for array in trained.values())
                if (len(kept) + 1) * size <= KEPT_BYTES:
                    kept[number] = trained
                return trained

            return ClientUpdate(-1 - number, float(len(self.material)), load)

        return tuple(shadow(number) for number in numbers)

    def _kept_for(
        self, round_number: int, reference: State, norms: Sequence[float]
    ) -> dict[int, Arrays]:
        """Return the shadows kept of just these circumstances; those of others are forgotten."""
        of = self._kept_of
        if of is None or of[0] != round_number or of[1] is not reference or of[2] != norms:
            self._kept, self._kept_of = {}, (round_number, reference, norms)
        return self._kept

    def _train(
        self,
        reference: State,
        norms: Sequence[float],
        rng: np.random.Generator,
        *,
        is_poisoned: bool,
    ) -> Arrays:
        split = self.material.draw(rng)
        distance = float(rng.choice(norms) * np.exp(JITTER * rng.standard_normal()))
        if is_poisoned and self._spec is not None:
            split = poisoned(split, self._spec, rng)
        return train_to(self._model, reference, split, distance, rng)
