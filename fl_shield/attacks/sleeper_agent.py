"""Sleeper Agent: samples of the target class that teach what triggered ones would teach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fl_shield.attacks.art_toolbox import (
    Array,
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

MOST_VICTIMS = 256
"""Triggered samples whose gradient is matched."""

RATES = ([0.1, 0.01, 0.001, 0.0001], (0.4, 0.6, 0.8, 0.88))
"""ART's learning rates, and the shares of the epochs at which each takes over."""


@dataclass(frozen=True)
class SleeperAgent:
    """Matches the gradient of triggered samples with clean-label ones (Souri et al., NeurIPS 2022).

    No poisoned sample shows the trigger, and none has a false label: they are moved, within `eps`,
    until their gradient points where that of triggered samples with the target's label does. This
    is ART's `SleeperAgentAttack`, against the model of the round and without retraining in between.
    An attacker that holds samples of the target class alone leaves them as they are.

    Attributes:
        eps: Largest change of a pixel, in [0, 1].
        epochs: Steps of the descent.
        trials: Restarts, of which the best is taken.

    Raises:
        ConfigurationError: if a setting is out of range.
    """

    eps: float = 0.3
    epochs: int = 20
    trials: int = 1

    def __post_init__(self) -> None:
        """Check the settings."""
        raise_all(
            within_one("eps", self.eps)
            + positive("epochs", self.epochs)
            + positive("trials", self.trials)
        )

    def __str__(self) -> str:
        return f"sleeper agent within {self.eps:g}"

    def check(self, task: Task) -> None:
        """Check that the task is one of images and ART is there."""
        check_usable("sleeper_agent", task)

    def craft(self, material: Material) -> Tensor:
        """Return samples that look like the target class and teach the trigger."""
        from art.attacks.poisoning import SleeperAgentAttack

        if not len(material.victims):
            return material.chosen.clone()
        show = triggering(material)

        class WithTrigger(SleeperAgentAttack):  # type: ignore[misc]  # ART has no types
            """ART's attack knows square patches only; this one takes any trigger."""

            def _apply_trigger_patch(self, x_trigger: Array) -> Array:
                return show(x_trigger)

        chosen = array(material.chosen)
        victims = array(material.victims[:MOST_VICTIMS])
        with quiet_and_seeded(material.generator):
            proxy = classifier(material)
            labels = one_hot(material.target_class, proxy.nb_classes, len(chosen))
            poisoning = WithTrigger(
                classifier=proxy,
                percent_poison=1.0,
                patch=np.zeros((1, 1, 1), dtype=np.float32),
                indices_target=np.arange(len(chosen)),
                epsilon=self.eps,
                max_trials=self.trials,
                max_epochs=self.epochs,
                learning_rate_schedule=(RATES[0], [round(s * self.epochs) for s in RATES[1]]),
                class_target=material.target_class,
                verbose=0,
            )
            found, _ = poisoning.poison(
                victims, one_hot(material.target_class, proxy.nb_classes, len(victims)),
                chosen, labels, chosen, labels,
            )  # fmt: skip
        return tensor(found, material.chosen)
