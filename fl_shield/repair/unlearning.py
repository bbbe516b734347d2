"""Unlearning by Neural Cleanse: train on synthesised triggers with the right labels.

Wang et al., S&P 2019, section VI-C: the model is fine-tuned on clean samples, a fifth of which
carry the synthesised trigger and keep their true label, until the trigger means nothing any more.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from fl_shield.data.task import Split, model_inputs
from fl_shield.errors import ConfigurationError, expected
from fl_shield.repair.fine_pruning import FINE_TUNING, check_clean
from fl_shield.scanning.models.base import frozen
from fl_shield.scanning.models.neural_cleanse import (
    NeuralCleanse,
    Triggers,
    TriggerSearch,
    synthesise_triggers,
)
from fl_shield.training.local import LocalTraining, train_locally

SHARE = 0.2
"""Share of the samples that carry a trigger (section VI-C)."""


@dataclass(frozen=True)
class Unlearnt:
    """A model that has unlearnt triggers.

    Attributes:
        model: The repaired model, in eval mode; the given one is left as it was.
        targets: Classes whose triggers were unlearnt; empty if none was suspicious, and the model
            is then a copy of the given one.
        triggers: The synthesised triggers of all classes.
    """

    model: nn.Module
    targets: tuple[int, ...]
    triggers: Triggers


def unlearn_triggers(
    model: nn.Module,
    clean: Split,
    *,
    targets: Sequence[int] | None = None,
    threshold: float = NeuralCleanse.published,
    share: float = SHARE,
    search: TriggerSearch | None = None,
    training: LocalTraining = FINE_TUNING,
    seed: int = 0,
) -> Unlearnt:
    """Synthesise the triggers of a model and train it to ignore the suspicious ones.

    Args:
        model: An image classifier; a copy is worked on.
        clean: Clean labelled images, as stored or as the model takes them.
        targets: Classes whose triggers to unlearn; None for those above `threshold`.
        threshold: Anomaly index above which a class is suspicious.
        share: Share of the samples that carry a trigger; several triggers take turns.
        search: How triggers are synthesised.
        training: How to train.
        seed: Seed of the training.

    Raises:
        ConfigurationError: if there are too few samples, a single class, no images, or a target
            is none of the classes.
    """
    check_clean(clean)
    inputs = model_inputs(clean.inputs)
    if inputs.dim() != 4 or not inputs.is_floating_point():
        raise ConfigurationError(
            "Unlearning by Neural Cleanse synthesises patterns of pixels and repairs models of "
            "images only. For text use fine_prune."
        )
    if not 0.0 < share <= 1.0:
        raise ConfigurationError(expected("share", "above 0 and at most 1", share))
    triggers = synthesise_triggers(frozen(model), inputs, search)
    indices = triggers.anomaly()
    if targets is None:
        targets = [int(label) for label in (indices > threshold).nonzero()[0]]
    wrong = [label for label in targets if not 0 <= label < len(indices)]
    if wrong:
        raise ConfigurationError(
            expected("targets", f"classes below {len(indices)}", ", ".join(map(str, wrong)))
        )
    repaired = copy.deepcopy(model).eval()
    if targets:
        order = torch.randperm(len(clean), generator=torch.Generator().manual_seed(seed))
        chosen = order[: max(1, round(share * len(clean)))]
        patched = inputs.clone()
        for turn, target in enumerate(targets):
            mine = chosen[turn :: len(targets)]
            patched[mine] = triggers.patterns.take(target).on(inputs[mine])[0]
        train_locally(repaired, Split(patched, clean.labels), training, seed=seed)
    return Unlearnt(repaired.eval(), tuple(targets), triggers)
