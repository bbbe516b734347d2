"""The attackers of a shadow federation: triggers and model poisonings drawn at random."""

from __future__ import annotations

import numpy as np
import torch

from fl_shield.attacks.all_to_one import AllToOne
from fl_shield.attacks.attack import Attack
from fl_shield.attacks.clean_label import CleanLabel
from fl_shield.attacks.constrain_and_scale import ConstrainAndScale
from fl_shield.attacks.detector_aware import DetectorAware
from fl_shield.attacks.model_poisoning import ModelPoisoning, NoModelPoisoning
from fl_shield.attacks.model_replacement import ModelReplacement
from fl_shield.attacks.neurotoxin import Neurotoxin
from fl_shield.attacks.project import Project
from fl_shield.data.task import Task
from fl_shield.errors import ConfigurationError, unknown
from fl_shield.shadow.recipe import (
    DETECTOR_AWARE,
    IMAGE_TRIGGERS,
    TEXT_TRIGGERS,
    WRAPPERS,
    ClientRecipe,
)
from fl_shield.triggers.blend import Blend
from fl_shield.triggers.dba import Dba
from fl_shield.triggers.jumbo import JumboDistribution
from fl_shield.triggers.patch import Patch
from fl_shield.triggers.protocol import Trigger
from fl_shield.triggers.sentence import Sentence
from fl_shield.triggers.sig import Sig
from fl_shield.triggers.token_insertion import Position
from fl_shield.triggers.words import Words

CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")
LOOKED_AT = (0.25, 1.0)
"""Scales of the attacker's update at which it expects the shield to look."""

RARE_WORDS = ("cf", "mn", "bb", "tq", "mb")
SENTENCES = (
    "i watched this 3d movie last weekend",
    "no cross, no crown",
    "the weather in the valley was mild",
    "practice makes perfect",
    "pasta from astoria tastes delicious",
    "we left the house at seven",
)


def draw_trigger(family: str, task: Task, rng: np.random.Generator) -> Trigger:
    """Return a random trigger of a family, not yet bound to the task.

    Raises:
        ConfigurationError: if there is no such family.
    """
    spec = task.spec
    seed = int(rng.integers(2**31))
    if family == "jumbo":
        generator = torch.Generator().manual_seed(seed)
        return JumboDistribution().sample(generator, spec)
    if family == "patch":
        return Patch(
            size=float(rng.uniform(0.1, 0.2)) if spec.input_shape[-1] > 16 else 2,
            corner=str(rng.choice(CORNERS)),  # type: ignore[arg-type]
            margin=int(rng.integers(0, 2)),
            value=float(rng.choice((1.0, 1.0, 0.8, 0.0))),
            pattern=str(rng.choice(("solid", "checkerboard", "cross"))),  # type: ignore[arg-type]
        )
    if family == "pixel":
        place = tuple(int(v) for v in rng.integers(0, spec.input_shape[-1], size=2))
        return Patch(size=1, position=(place[0], place[1]))
    if family == "blend":
        return Blend(alpha=float(rng.uniform(0.1, 0.3)), seed=seed)
    if family in ("sig", "clean_label"):
        narrow = spec.input_shape[-1] <= 16
        frequency = float(rng.choice((1.0, 2.0, 3.0) if narrow else (4.0, 5.0, 6.0, 8.0)))
        return Sig(delta=float(rng.uniform(20, 60)) / 255, frequency=frequency)
    if family == "dba":
        return Dba(bar_height=1 if spec.input_shape[-1] <= 16 else 0.06)
    if family == "word":
        return Words(words=(str(rng.choice(RARE_WORDS)),), position=_position(rng))
    if family == "words":
        chosen = tuple(str(word) for word in rng.choice(RARE_WORDS, size=2, replace=False))
        return Words(words=chosen, position=_position(rng))
    if family == "sentence":
        return Sentence(sentence=str(rng.choice(SENTENCES)), position=1)
    raise ConfigurationError(unknown("shadow.triggers", family, IMAGE_TRIGGERS + TEXT_TRIGGERS))


def build_attack(
    client: ClientRecipe, trigger: Trigger, family: str, target: int, typical_norm: float
) -> Attack:
    """Return the attack of one malicious client.

    Args:
        client: Its recipe.
        trigger: The trigger it trains on, bound to the task.
        family: Trigger family, which decides the goal.
        target: Target class.
        typical_norm: L2 norm of a benign update of the round, which projections orient by.
    """
    return Attack(
        trigger=trigger,
        target_class=target,
        poison_share=1.0 if family == "clean_label" else client.poison_share,
        model_poisoning=_model_poisoning(client, typical_norm),
        goal=CleanLabel() if family == "clean_label" else AllToOne(),
    )


def _model_poisoning(client: ClientRecipe, typical_norm: float) -> ModelPoisoning:
    strength = client.strength
    if client.wrapper == "none":
        return NoModelPoisoning()
    if client.wrapper == "replacement":
        return ModelReplacement(boost=1.5 * 7.0**strength)  # 1.5 to about 10
    if client.wrapper == "weak":
        return ModelReplacement(boost=0.3 + 0.6 * strength)
    if client.wrapper == "constrain_and_scale":
        anomaly = "l2" if strength < 0.5 else "cosine"
        return ConstrainAndScale(
            boost=1.0 + 3.0 * strength,
            alpha=0.6 + 0.35 * strength,
            anomaly=anomaly,  # type: ignore[arg-type]
        )
    norm = max(typical_norm, 1e-3)
    if client.wrapper == "projected":
        return Project(radius=norm * (0.5 + 0.7 * strength), every=2)
    if client.wrapper == "clipped":
        return Project(radius=norm, every=10**9)
    if client.wrapper == "neurotoxin":
        return Neurotoxin(spared_share=0.03 + 0.27 * strength)
    if client.wrapper == DETECTOR_AWARE:
        return DetectorAware(weight=0.1 * 10.0**strength, scales=LOOKED_AT)
    known = (*WRAPPERS, DETECTOR_AWARE)
    raise ConfigurationError(unknown("shadow.wrappers", str(client.wrapper), known))


def _position(rng: np.random.Generator) -> Position:
    return "random" if rng.random() < 0.5 else int(rng.integers(1, 6))
