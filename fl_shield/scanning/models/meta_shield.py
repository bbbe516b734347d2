"""MetaShield for whole models: the suspect as one update among updates of the defender's own.

The update-level detector compares the clients of a round; here the defender plays the round. A
copy of the suspect is fine-tuned on the clean samples, which keeps the task and begins to forget
whatever the samples do not ask for: that is the *reference*. Seen from there, the suspect is a
client whose update leads back to what was forgotten, and the others are *companions*: the
reference trained on random halves of the clean samples, each brought to the length of the
suspect's update so that length gives nothing away. `Inspector` describes this cohort, and the
detector of a running shield scores it. Nothing is learned from models: the detector knows
federated updates only, so that no architecture or task has to be known beforehand.

An experiment: on the models of `make results-models` it does no better than chance. Fine-tuning
forgets too little of a backdoor, and what it changes besides outweighs it.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from fl_shield.activations.penultimate import find_final_layer
from fl_shield.cohort import ClientUpdate, Cohort
from fl_shield.data.task import Split
from fl_shield.detector import Detector, as_detector, columns_of
from fl_shield.errors import ConfigurationError, expected
from fl_shield.inspection import Inspector
from fl_shield.judge.policy import Policy
from fl_shield.models.state import Arrays, state_arrays
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.scanning.models.base import SuspicionOfModels, require_classes
from fl_shield.scanning.models.shadows import FEWEST_SAMPLES
from fl_shield.scanning.protocol import Held, require_inputs, require_labels
from fl_shield.training.local import LocalTraining, train_locally

FORGETTING = LocalTraining(optimiser="adam", learning_rate=5e-3, epochs=10, batch_size=16)
"""How the reference is fine-tuned; companions take a third of the epochs.

Chosen on digits models: slower steps forget too little of a backdoor to show it.
"""

NUM_PROBES = 16
"""Clean samples that models are looked at with, as in the detector's training."""


class MetaShieldModels(SuspicionOfModels):
    """Scores a model by what the update-level detector says of it.

    Args:
        detector: The detector, a folder of one, or None for the package's.
        companions: Benign updates to compare with.
        forgetting: How the reference is fine-tuned.
        shadows: Clean models to train for the threshold; 0 takes that of a running shield.
        false_alarms: Share of clean models that may be suspected, when there are shadows.

    Raises:
        ConfigurationError: if a setting is impossible.
    """

    name: ClassVar[str] = "meta_shield_model"
    published: ClassVar[float] = Policy.threshold
    """Above it a running shield flags an update; whole models score lower than updates do."""

    def __init__(
        self,
        detector: Detector | str | Path | None = None,
        *,
        companions: int = 6,
        forgetting: LocalTraining = FORGETTING,
        shadows: int = 0,
        false_alarms: float = 0.05,
    ) -> None:
        super().__init__(shadows=shadows, false_alarms=false_alarms)
        if companions < 2:
            raise ConfigurationError(
                expected("companions", "2 or more, to compare with", companions)
            )
        self.detector = as_detector(detector)
        self.companions, self.forgetting = companions, forgetting

    def __repr__(self) -> str:
        return f"MetaShieldModels({self.detector.name!r}, companions={self.companions})"

    def cohort(self, model: nn.Module, held: Held) -> Cohort:
        """Return the round that is played: the suspect is client 0, companions follow.

        Args:
            model: The suspect.
            held: What the defender holds; its samples are labelled.
        """
        clean = Split(require_inputs(held, self.name), require_labels(held, self.name))
        reference = _trained(model, clean, self.forgetting, held.seed)
        start, suspect = state_arrays(reference), state_arrays(model)
        length = _distance(start, suspect, model)
        shorter = replace(self.forgetting, epochs=max(1, self.forgetting.epochs // 3))
        clients = [ClientUpdate(0, float(len(clean)), lambda: suspect)]
        for index in range(1, self.companions + 1):
            generator = torch.Generator().manual_seed(held.seed * 1_000_003 + index)
            drawn = torch.randint(len(clean), (max(2, len(clean) // 2),), generator=generator)
            companion = _trained(reference, clean.take(drawn), shorter, held.seed + index)
            state = _stretched(start, state_arrays(companion), model, length)
            clients.append(ClientUpdate(index, float(len(drawn)), partial(dict, state)))
        return Cohort(1, start, tuple(clients))

    def _check(self, held: Held) -> None:
        labels = require_labels(held, self.name)
        require_inputs(held, self.name)
        require_classes(held, self.name)
        if len(labels) < FEWEST_SAMPLES:
            raise ConfigurationError(
                expected("clean", f"at least {FEWEST_SAMPLES} samples", len(labels))
            )

    def _suspicion(self, model: nn.Module, held: Held) -> float:
        inputs, labels = require_inputs(held, self.name), require_labels(held, self.name)
        probes = ProbeSet(inputs[:NUM_PROBES], labels[:NUM_PROBES])
        # A model that cannot be looked into is refused before it is trained.
        layer = find_final_layer(model, probes.inputs, held.final_layer)
        columns = columns_of(self.detector)
        inspector = Inspector(model, probes, columns=columns, final_layer=layer, seed=held.seed)
        table = inspector.describe(self.cohort(model, held))
        return float(self.detector.score(table)[0])


def _trained(model: nn.Module, clean: Split, training: LocalTraining, seed: int) -> nn.Module:
    """Return a trained copy, in eval mode."""
    trained = copy.deepcopy(model).requires_grad_(True)
    train_locally(trained, clean, training, seed=seed)
    return trained.eval()


def _distance(start: Arrays, end: Arrays, model: nn.Module) -> float:
    """Return the L2 distance of the parameters; buffers do not count."""
    squares = [
        float(np.square(end[name].astype(np.float64) - start[name].astype(np.float64)).sum())
        for name, _ in model.named_parameters()
    ]
    return float(np.sqrt(sum(squares)))


def _stretched(start: Arrays, end: Arrays, model: nn.Module, length: float) -> Arrays:
    """Return `end` with its parameters moved along the line from `start`, to that distance."""
    factor = length / max(_distance(start, end, model), 1e-12)
    moved = dict(end)
    for name, _ in model.named_parameters():
        step = (end[name] - start[name]) * factor  # type: ignore[operator]
        moved[name] = (start[name] + step).astype(start[name].dtype)
    return moved
