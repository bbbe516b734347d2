"""An attack: what is planted, where, how much of the data is poisoned, and how the model is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from fl_shield.attacks.all_to_one import AllToOne
from fl_shield.attacks.crafting import Crafting, Material
from fl_shield.attacks.goal import Goal
from fl_shield.attacks.model_poisoning import ModelPoisoning, NoModelPoisoning
from fl_shield.attacks.schedule import Schedule
from fl_shield.data.task import Task
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.triggers.protocol import (
    DecoyTrigger,
    DistributedTrigger,
    OptimisedTrigger,
    Trigger,
    seeded,
)


@dataclass(frozen=True, kw_only=True)
class Attack:
    """A backdoor attack of one client.

    Attributes:
        trigger: The change of inputs that the model should obey.
        target_class: The class that triggered inputs should get; some goals have a say in it.
        poison_share: Share of the attacker's samples that is poisoned, in (0, 1]. Samples that
            the goal leaves alone count in the base, and cap the share that is reached.
        model_poisoning: What is done to the model beyond training it on poisoned data.
        schedule: The rounds of the attack.
        goal: Which samples are poisoned and what class they should get.
        crafting: How poisoned samples are made against the model; None puts the trigger on them.

    Raises:
        ConfigurationError: if a setting is impossible whatever the task.
    """

    trigger: Trigger
    target_class: int = 0
    poison_share: float = 0.5
    model_poisoning: ModelPoisoning = field(default_factory=NoModelPoisoning)
    schedule: Schedule = field(default_factory=Schedule)
    goal: Goal = field(default_factory=AllToOne)
    crafting: Crafting | None = None

    def __post_init__(self) -> None:
        """Check what does not depend on the task."""
        problems = []
        trigger: object = self.trigger  # a configuration may hold anything
        if not isinstance(trigger, Trigger):
            problems.append(
                expected(
                    "attack.trigger",
                    "a trigger with `modality`, `bind` and `apply`",
                    self.trigger,
                    "Choose one, for example trigger=patch.",
                )
            )
        goal: object = self.goal
        if not isinstance(goal, Goal):
            problems.append(
                expected(
                    "attack.goal",
                    "a goal with `bind`, `eligible`, `victims`, `wanted` and `legend`",
                    self.goal,
                    "Choose one, for example goal=all_to_one.",
                )
            )
        if not 0 < self.poison_share <= 1:
            problems.append(
                expected(
                    "attack.poison_share",
                    "above 0 and at most 1",
                    self.poison_share,
                    "For a run without attack, set the number of attackers to 0.",
                )
            )
        if self.target_class < 0:
            problems.append(expected("attack.target_class", "a class index", self.target_class))
        raise_all(problems)

    def __str__(self) -> str:
        legend = f"{self.trigger} → {self.goal.legend(self.target_class)}"
        if self.crafting is not None:
            legend = f"{legend}, {self.crafting}"
        plain = type(self.model_poisoning) is NoModelPoisoning
        return legend if plain else f"{legend}, {self.model_poisoning}"

    def bind(self, task: Task) -> Attack:
        """Return the attack ready for `task`.

        Raises:
            ConfigurationError: if the trigger does not fit the task's inputs, or target class and
                goal do not fit its classes.
        """
        if self.target_class >= task.spec.num_classes:
            raise ConfigurationError(
                expected(
                    "attack.target_class",
                    f"below the {task.spec.num_classes} classes of {task.name}",
                    self.target_class,
                )
            )
        if self.crafting is not None:
            self.crafting.check(task)
        goal = self.goal.bind(task, self.target_class)
        return replace(self, trigger=self.trigger.bind(task), goal=goal)

    def for_attacker(self, index: int) -> Attack:
        """Return the attack as attacker number `index` (from 0) trains it.

        They are all the same, except that the parts of a distributed trigger are dealt in turn.
        """
        if isinstance(self.trigger, DistributedTrigger):
            return replace(self, trigger=self.trigger.part(index))
        return self

    @property
    def is_fitted_to_models(self) -> bool:
        """Whether the trigger is optimised against the global model of each round."""
        return isinstance(self.trigger, OptimisedTrigger)

    def fit(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Attack:
        """Return the attack with its trigger optimised against `model`, if it is of that kind.

        Args:
            model: The global model as it was sent out; it is left as it is.
            inputs: Clean samples of the attackers in the form the model takes.
            labels: `(samples,)` int64 true classes.
            generator: Source of chance; the same state gives the same trigger.
        """
        if not isinstance(self.trigger, OptimisedTrigger):
            return self
        chosen = self.goal.victims(labels, self.target_class)  # what it has to work on at test time
        inputs, labels = inputs[chosen], labels[chosen]
        wanted = self.goal.wanted(labels, self.target_class)
        return replace(
            self, trigger=self.trigger.optimise(model, inputs, labels, wanted, generator)
        )

    def active(self, round_number: int) -> bool:
        """Return whether round `round_number` (from 1) is attacked."""
        return self.schedule.active(round_number)

    def poison(
        self,
        inputs: Tensor,
        labels: Tensor,
        generator: torch.Generator | None = None,
        model: nn.Module | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return a copy of the samples in which some are triggered and relabelled.

        Args:
            inputs: `(samples, …)` model inputs: float images in [0, 1] or int64 token ids.
            labels: `(samples,)` int64 true classes.
            generator: Chooses the samples; seed 0 when None.
            model: The model as it was sent out, which `crafting` needs; it is left as it is.

        Returns:
            Inputs and labels of the same shapes and dtypes; what was given is not written to.
            `round(poison_share * samples)` samples are poisoned, at least one and at most all
            those eligible. Of the others, some become decoys if the trigger has such.

        Raises:
            ConfigurationError: if the attack has a `crafting` and there is no model.
        """
        generator = seeded(generator)
        chosen = self._choose(labels, generator).to(labels.device)
        inputs, labels = inputs.clone(), labels.clone()
        if len(chosen) and isinstance(self.trigger, DecoyTrigger):
            count = round(self.trigger.decoy_share * len(chosen))
            decoys = self._choose_decoys(len(labels), chosen, count, generator).to(labels.device)
            inputs[decoys] = self.trigger.decoy(inputs[decoys], generator)
        if len(chosen):
            inputs[chosen] = self._planted(inputs, labels, chosen, generator, model)
            labels[chosen] = self.goal.wanted(labels[chosen], self.target_class)
        return inputs, labels

    def _planted(
        self,
        inputs: Tensor,
        labels: Tensor,
        chosen: Tensor,
        generator: torch.Generator,
        model: nn.Module | None,
    ) -> Tensor:
        """Return the poisoned form of the samples `chosen`."""
        if self.crafting is None:
            return self.trigger.apply(inputs[chosen], generator)
        if model is None:
            raise ConfigurationError(
                f"The attack {str(self)!r} makes its samples against a model. Call "
                "attack.poison(inputs, labels, generator, model)."
            )
        return self.crafting.craft(
            Material(
                model=model,
                chosen=inputs[chosen],
                labels=labels[chosen],
                victims=inputs[self.goal.victims(labels, self.target_class)],
                trigger=self.trigger,
                target_class=self.target_class,
                generator=generator,
            )
        )

    def _choose_decoys(
        self, samples: int, chosen: Tensor, count: int, generator: torch.Generator
    ) -> Tensor:
        """Return the indices of at most `count` samples that are not poisoned, on the CPU."""
        order = torch.randperm(samples, generator=generator, device=generator.device).cpu()
        return order[~torch.isin(order, chosen.cpu())][:count]

    def _choose(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the indices of the samples to poison, `(k,)` int64 on the CPU."""
        eligible = self.goal.eligible(labels, self.target_class).nonzero().flatten().cpu()
        count = min(len(eligible), max(1, round(self.poison_share * len(labels))))
        order = torch.randperm(len(eligible), generator=generator, device=generator.device).cpu()
        return eligible[order[:count]]
