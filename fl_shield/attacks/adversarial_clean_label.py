"""Clean-label with adversarial perturbations: what the class looks like is made hard to use."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fl_shield.attacks.art_toolbox import (
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
class AdversarialCleanLabel:
    """Perturbs samples of the target class, then puts the trigger on (Turner et al., 2018).

    A triggered sample with its true label teaches little, as what else it shows explains the label
    already. Turned away from its class by projected gradient descent first, it can only be learned
    by the trigger. This is ART's `PoisoningAttackCleanLabelBackdoor`, but that the samples are
    drawn by `Attack`: ART draws with replacement, and leaves some of the share clean.

    Attributes:
        eps: Largest change of a pixel, in [0, 1], apart from the trigger.
        step: Change of a pixel in one step.
        steps: Steps of the descent.

    Raises:
        ConfigurationError: if a setting is out of range.
    """

    eps: float = 0.3
    step: float = 0.03
    steps: int = 20

    def __post_init__(self) -> None:
        """Check the settings."""
        raise_all(
            within_one("eps", self.eps)
            + within_one("step", self.step)
            + positive("steps", self.steps)
        )

    def __str__(self) -> str:
        return f"adversarial perturbation {self.eps:g}"

    def check(self, task: Task) -> None:
        """Check that the task is one of images and ART is there."""
        check_usable("adversarial_clean_label", task)

    def craft(self, material: Material) -> Tensor:
        """Return perturbed samples with the trigger on them."""
        from art.attacks.poisoning import (
            PoisoningAttackBackdoor,
            PoisoningAttackCleanLabelBackdoor,
        )

        with quiet_and_seeded(material.generator):
            proxy = classifier(material)
            (target,) = one_hot(material.target_class, proxy.nb_classes, 1)
            poisoning = PoisoningAttackCleanLabelBackdoor(
                backdoor=PoisoningAttackBackdoor(triggering(material)),
                proxy_classifier=proxy,
                target=target,
                eps=self.eps,
                eps_step=min(self.step, self.eps),
                max_iter=self.steps,
            )
            labels = one_hot(material.target_class, proxy.nb_classes, len(material.chosen))
            perturbed = poisoning.attack.generate(array(material.chosen), labels)
            triggered, _ = poisoning.backdoor.poison(perturbed, target, broadcast=True)
        return tensor(triggered, material.chosen)
