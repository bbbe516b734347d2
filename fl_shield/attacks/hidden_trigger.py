"""Hidden trigger: samples of the target class whose features are those of triggered ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fl_shield.attacks.art_toolbox import (
    FEATURES,
    array,
    check_usable,
    classifier,
    one_hot,
    positive,
    quiet_and_seeded,
    tensor,
    triggering,
    within_one,
)
from fl_shield.attacks.crafting import Material
from fl_shield.data.task import Task
from fl_shield.errors import raise_all


@dataclass(frozen=True)
class HiddenTrigger:
    """Draws target-class samples to triggered ones in feature space (Saha et al., AAAI 2020).

    No poisoned sample shows the trigger, and none has a false label: each is moved, within `eps`,
    until the model's penultimate features are those of a triggered sample of another class. This is
    ART's `HiddenTriggerBackdoorPyTorch`. An attacker that holds samples of the target class alone
    has nothing to imitate and leaves them as they are.

    Attributes:
        eps: Largest change of a pixel, in [0, 1].
        rate: Step size.
        steps: Steps of the descent.

    Raises:
        ConfigurationError: if a setting is out of range.
    """

    eps: float = 0.3
    rate: float = 0.01
    steps: int = 100

    def __post_init__(self) -> None:
        """Check the settings."""
        raise_all(
            within_one("eps", self.eps)
            + positive("rate", self.rate)
            + positive("steps", self.steps)
        )

    def __str__(self) -> str:
        return f"hidden trigger within {self.eps:g}"

    def check(self, task: Task) -> None:
        """Check that the task is one of images and ART is there."""
        check_usable("hidden_trigger", task)

    def craft(self, material: Material) -> Tensor:
        """Return samples that look like the target class and are triggered to the model."""
        from art.attacks.poisoning import HiddenTriggerBackdoorPyTorch, PoisoningAttackBackdoor

        count = len(material.chosen)
        if not len(material.victims):
            return material.chosen.clone()
        # ART wants as many samples to imitate as there are to change: they are used in turn.
        order = torch.randperm(len(material.victims), generator=material.generator)
        sources = material.victims[order.repeat(-(-count // len(order)))[:count]]
        with quiet_and_seeded(material.generator):
            proxy = classifier(material)
            classes = proxy.nb_classes
            other = (material.target_class + 1) % classes  # stands for all that are to be turned
            labels = [
                one_hot(material.target_class, classes, count),
                one_hot(other, classes, count),
            ]
            poisoning = HiddenTriggerBackdoorPyTorch(
                classifier=proxy,
                target=labels[0][0],
                source=labels[1][0],
                feature_layer=FEATURES,
                backdoor=PoisoningAttackBackdoor(triggering(material)),
                eps=self.eps,
                learning_rate=self.rate,
                stopping_threshold=0.0,
                max_iter=self.steps,
                poison_percent=1.0,
                verbose=False,
            )
            images = np.concatenate([array(material.chosen), array(sources)])
            found, places = poisoning.poison(images, np.concatenate(labels))
        images[places] = found  # ART changes the samples in an order of its own
        return tensor(images[:count], material.chosen)
