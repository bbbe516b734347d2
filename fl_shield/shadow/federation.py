"""A shadow federation: real local updates over a few rounds, with known truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from fl_shield.attacks.attack import Attack
from fl_shield.cohort import ClientUpdate, Cohort
from fl_shield.data.partition import dirichlet
from fl_shield.data.sampling import stratified_indices
from fl_shield.data.task import Split
from fl_shield.metrics.backdoor import accuracy, attack_success_rate
from fl_shield.models.state import Arrays, load_arrays, state_arrays
from fl_shield.shadow.attackers import build_attack, draw_trigger
from fl_shield.shadow.domain import OPTIMISERS, Domain
from fl_shield.shadow.recipe import ClientRecipe, Recipe
from fl_shield.shadow.warm_start import warm_model
from fl_shield.training.local import LocalTraining, train_locally
from fl_shield.triggers.protocol import DistributedTrigger, Trigger

NUM_PROBES = 64
"""Clean samples that the shadow server holds; descriptors may use fewer."""

NUM_JUDGED = 250
"""Test samples on which accuracy and attack success are measured in a round."""

TINY = 8

WARM = 1_000_000
"""Rounds before the first are numbered from here: their draws are not those of any other."""


@dataclass(frozen=True)
class ShadowRound:
    """One round: the cohort and its truth.

    Attributes:
        cohort: Global weights and updates; clients are numbered from 0.
        malicious: `(clients,)` truth; attackers are benign before their first attacked round.
        harm: `(clients,)` rise of the attack success rate if that update alone, weighted as one
            of the cohort, were added to the global model; 0 for benign clients.
        facts: JSON-ready facts of the round: accuracy and attack success of the global model.
    """

    cohort: Cohort
    malicious: list[bool]
    harm: list[float]
    facts: Mapping[str, Any]


class ShadowFederation:
    """A federation of a recipe; `rounds()` plays it.

    Args:
        domain: Data set and architectures.
        recipe: What to play.

    Attributes:
        probes: `NUM_PROBES` clean samples of the training split that no client has.
    """

    def __init__(self, domain: Domain, recipe: Recipe) -> None:
        self.domain, self.recipe = domain, recipe
        task = domain.task
        rng = np.random.default_rng([recipe.seed, 11])
        probes = stratified_indices(task.train.labels, NUM_PROBES, recipe.seed)
        self.probes = task.train.take(probes)
        self._clients = self._deal(probes, rng)
        self._sizes = [float(len(split)) for split in self._clients]
        self._held_back = self._draw_held_back()
        self._judged = task.test.take(
            torch.from_numpy(rng.permutation(len(task.test))[:NUM_JUDGED])
        )
        self.trigger: Trigger = draw_trigger(recipe.trigger, task, rng).bind(task)
        self.target = int(rng.integers(task.spec.num_classes))
        architecture = domain.architectures[recipe.architecture]
        self._base = replace(
            OPTIMISERS[recipe.optimiser],
            learning_rate=architecture.rates[recipe.optimiser] * recipe.rate_factor,
        )
        self._model = warm_model(domain, recipe.architecture, recipe.seed % 3, recipe.stage)

    def new_model(self) -> nn.Module:
        """Return a model of the recipe's architecture."""
        return self.domain.architectures[self.recipe.architecture].model(self.domain.task.spec)

    def rounds(self) -> Iterator[ShadowRound]:
        """Play the rounds, each from the aggregate of the one before."""
        reference = self._warmed(state_arrays(self._model))
        for number in range(1, self.recipe.rounds + 1):
            played, states = self._play(number, reference)
            yield played
            kept = [
                i
                for i, bad in enumerate(played.malicious)
                if (self.recipe.aggregate == "all" or not bad) and i not in self._held_back
            ]
            reference = _average(
                reference, [states[i] for i in kept], [self._sizes[i] for i in kept]
            )

    def _warmed(self, reference: Arrays) -> Arrays:
        """Return the model after the rounds in which everybody is honest."""
        everybody = set(range(len(self.recipe.clients)))
        for number in range(self.recipe.warm_rounds):
            is_early = number < self.recipe.warm_rounds // 2
            kept = sorted(everybody if is_early else everybody - self._held_back)
            states = [
                self._train(index, self.recipe.clients[index], WARM + number, reference, None)
                for index in kept
            ]
            reference = _average(reference, states, [self._sizes[index] for index in kept])
        return reference

    def _draw_held_back(self) -> set[int]:
        """Return the benign clients whose updates are not averaged in.

        Half of the time they are those who have most of a class, which the model then forgets: the
        updates that bring it back are as alike, and as unlike all others, as those of attackers.
        """
        rng = np.random.default_rng([self.recipe.seed, 13])
        attackers = set(self.recipe.attackers)
        benign = rng.permutation([i for i in range(len(self._clients)) if i not in attackers])
        if rng.random() < 0.5:
            wanted = int(rng.integers(self.domain.task.spec.num_classes))
            shares = [
                float((self._clients[i].labels == wanted).float().mean()) for i in benign.tolist()
            ]
            benign = benign[np.argsort(-np.asarray(shares), kind="stable")]
        return set(benign[: round(self.recipe.held_back * len(benign))].tolist())

    def _play(self, number: int, reference: Arrays) -> tuple[ShadowRound, list[Arrays]]:
        states: dict[int, Arrays] = {}
        attacked = number >= self.recipe.starts
        attackers = self.recipe.attackers if attacked else []
        norms = []
        for index, client in enumerate(self.recipe.clients):
            if index not in attackers:
                states[index] = self._train(index, client, number, reference, None)
                norms.append(_distance(reference, states[index]))
        typical = float(np.median(norms)) if norms else 1.0
        whole = build_attack(
            ClientRecipe(1, 1.0, 32, wrapper="none"),
            self.trigger, self.recipe.trigger, self.target, typical,
        )  # fmt: skip
        before = self._success(reference, whole)
        harm = [0.0] * len(self.recipe.clients)
        for order, index in enumerate(attackers):
            trigger = self.trigger
            if isinstance(trigger, DistributedTrigger):
                trigger = trigger.part(order)
            attack = build_attack(
                self.recipe.clients[index], trigger, self.recipe.trigger, self.target, typical
            )
            states[index] = self._train(
                index, self.recipe.clients[index], number, reference, attack
            )
            moved = _moved(reference, states[index], 1 / len(self.recipe.clients))
            harm[index] = self._success(moved, whole) - before
        ordered = [states[i] for i in range(len(self.recipe.clients))]
        cohort = Cohort(
            number,
            reference,
            tuple(
                ClientUpdate(i, self._sizes[i], lambda state=state: state)  # type: ignore[misc]
                for i, state in enumerate(ordered)
            ),
        )
        load_arrays(self._model, reference)
        facts = {
            "accuracy": accuracy(self._model, self._judged),
            "attack_success": before,
            "target": self.target,
        }
        malicious = [index in attackers for index in range(len(ordered))]
        return ShadowRound(cohort, malicious, harm, facts), ordered

    def _train(
        self,
        index: int,
        client: ClientRecipe,
        number: int,
        reference: Arrays,
        attack: Attack | None,
    ) -> Arrays:
        load_arrays(self._model, reference)
        seed = int(np.random.default_rng([self.recipe.seed, number, index]).integers(2**31))
        training: LocalTraining = client.training(self._base)
        train_locally(self._model, self._clients[index], training, seed=seed, attack=attack)
        self._model.eval()
        return state_arrays(self._model)

    def _success(self, state: Arrays, attack: Attack) -> float:
        load_arrays(self._model, state)
        return attack_success_rate(self._model, self._judged, attack) or 0.0

    def _deal(self, probes: torch.Tensor, rng: np.random.Generator) -> list[Split]:
        task, recipe = self.domain.task, self.recipe
        rest = np.setdiff1d(np.arange(len(task.train)), probes.numpy())
        wanted = round(recipe.mean_samples * len(recipe.clients))
        pool = rng.permutation(rest)[:wanted]
        parts = dirichlet(
            task.train.labels.numpy()[pool], len(recipe.clients), recipe.seed % 2**32, recipe.alpha
        )
        return [
            _odd(task.train.take(torch.from_numpy(pool[part])), client.oddity, task, rng)
            for part, client in zip(parts, recipe.clients, strict=True)
        ]


def _odd(split: Split, oddity: str, task: Any, rng: np.random.Generator) -> Split:
    if oddity == "tiny":
        return split.take(torch.arange(min(TINY, len(split))))
    if oddity == "single_class":
        common = torch.bincount(split.labels).argmax()
        return split.take((split.labels == common).nonzero().flatten())
    if oddity == "label_noise":
        labels = split.labels.clone()
        wrong = torch.from_numpy(rng.random(len(labels)) < 0.3)
        drawn = torch.from_numpy(rng.integers(task.spec.num_classes, size=len(labels)))
        labels[wrong] = drawn[wrong]
        return Split(split.inputs, labels)
    return split


def _distance(reference: Arrays, state: Arrays) -> float:
    total = sum(
        float(np.square(state[key].astype(np.float64) - base.astype(np.float64)).sum())
        for key, base in reference.items()
        if base.dtype.kind == "f" and not key.endswith(("running_mean", "running_var"))
    )
    return float(np.sqrt(total))


def _moved(reference: Arrays, state: Arrays, share: float) -> Arrays:
    moved: Arrays = {}
    for key, base in reference.items():
        if base.dtype.kind == "f":
            start, end = base.astype(np.float64), state[key].astype(np.float64)
            moved[key] = (start + share * (end - start)).astype(base.dtype)
        else:
            moved[key] = state[key]
    return moved


def _average(reference: Arrays, states: list[Arrays], sizes: list[float]) -> Arrays:
    weights = np.asarray(sizes) / sum(sizes)
    average: Arrays = {}
    for key, base in reference.items():
        if base.dtype.kind == "f":
            parts = np.stack([state[key].astype(np.float64) for state in states])
            average[key] = np.tensordot(weights, parts, axes=1).astype(base.dtype)
        else:
            average[key] = states[0][key]
    return average
