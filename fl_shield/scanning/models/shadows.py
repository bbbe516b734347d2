"""Shadow models: models like the suspect that the defender trains, with backdoors and without.

What the attacker will do is unknown, so that the backdoors are draws of the Jumbo distribution
(Xu et al., MNTD, S&P 2021, section V-B): each shadow has a trigger, a target class and a share of
poisoned samples of its own. Images are trained on with slightly moved copies
(`fl_shield.scanning.models.augmenting`), in as many steps as without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from fl_shield.attacks.attack import Attack
from fl_shield.data.task import Split
from fl_shield.errors import ConfigurationError, expected
from fl_shield.scanning.models.augmenting import COPIES, augmented
from fl_shield.scanning.protocol import Held, require_inputs, require_labels
from fl_shield.training.local import LocalTraining, train_locally
from fl_shield.triggers.jumbo import JumboDistribution

POISON_SHARE = (0.05, 0.5)
"""Range of the share of poisoned samples (the authors' program)."""

DEFAULT_TRAINING = LocalTraining(optimiser="adam", learning_rate=1e-3, epochs=40, batch_size=32)
"""For a few hundred samples."""

FEWEST_SAMPLES = 16
"""Below this a model learns its samples by heart and nothing of the task."""


@dataclass(frozen=True)
class Shadow:
    """A model that the defender trained.

    Attributes:
        model: The model, in eval mode.
        attack: The backdoor that it has; None for clean ones.
    """

    model: nn.Module
    attack: Attack | None = None


def train_shadows(held: Held, clean: int, backdoored: int, name: str) -> list[Shadow]:
    """Train shadow models on the clean samples of the defender.

    Args:
        held: What the defender holds: labelled samples and an architecture.
        clean: Number of clean shadows, which come first.
        backdoored: Number of shadows with a backdoor.
        name: The scanner that asks, for messages.

    Raises:
        ConfigurationError: if there are no labels, no architecture, a single class or too few
            samples.
    """
    if held.architecture is None:
        raise ConfigurationError(
            f"The scanner {name} trains shadow models, and nothing says of what architecture. "
            "Give Held(architecture=…), which is called with the TaskSpec."
        )
    split = Split(require_inputs(held, name), require_labels(held, name))
    if len(split) < FEWEST_SAMPLES:
        raise ConfigurationError(
            expected("clean", f"at least {FEWEST_SAMPLES} samples for shadow models", len(split))
        )
    if len(set(split.labels.tolist())) < 2:
        raise ConfigurationError(
            "The clean samples are of a single class; shadow models need two classes or more."
        )
    training = held.training or DEFAULT_TRAINING
    if held.spec.modality == "image":
        split = augmented(split, COPIES, held.seed)
        training = replace(training, epochs=math.ceil(training.epochs / COPIES))
    shadows = []
    for index in range(clean + backdoored):
        seed = held.seed * 1_000_003 + index
        attack = None if index < clean else draw_attack(held, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = held.architecture(held.spec)
        train_locally(model, split, training, seed=seed, attack=attack)
        shadows.append(Shadow(model.eval().requires_grad_(False), attack))
    return shadows


def draw_attack(held: Held, seed: int) -> Attack:
    """Return a backdoor drawn from the Jumbo distribution."""
    generator = torch.Generator().manual_seed(seed)
    chance = torch.rand(2, generator=generator).tolist()
    low, high = POISON_SHARE
    return Attack(
        trigger=JumboDistribution().sample(generator, held.spec, _no_words(held)),
        target_class=int(chance[0] * held.spec.num_classes),
        poison_share=low + chance[1] * (high - low),
    )


def _no_words(held: Held) -> set[int]:
    """Return the token ids that are no words."""
    if held.word_tokens is None:
        return set()
    return set(range(held.spec.vocab_size)) - set(held.word_tokens)
