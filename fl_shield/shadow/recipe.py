"""The recipe of a shadow federation: everything about it that is drawn at random.

*Odd is not guilty*: effort (epochs, learning rate, batch size, data) of benign clients and of
attackers is drawn from the same ranges, and some benign clients are odd: tiny, of one class, badly
labelled, training longer or faster.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fl_shield.errors import expected, raise_all, unknown
from fl_shield.training.local import LocalTraining

Range = tuple[float, float]

ODDITIES = ("none", "tiny", "single_class", "label_noise", "long", "fast")
"""What may be odd about a benign client."""

WRAPPERS = (
    "none",
    "replacement",
    "constrain_and_scale",
    "projected",
    "clipped",
    "neurotoxin",
    "weak",
)
"""Model poisonings that attackers draw from."""

DETECTOR_AWARE = "detector_aware"
"""Model poisoning of attackers who know the shield: only where it is asked for, to judge by."""

IMAGE_TRIGGERS = ("patch", "pixel", "blend", "sig", "clean_label", "dba", "jumbo")
TEXT_TRIGGERS = ("word", "words", "sentence", "jumbo")
"""Trigger families that attackers draw from; `clean_label` is SIG on target-class samples only."""


@dataclass(frozen=True, kw_only=True)
class RecipeRanges:
    """Ranges that recipes are drawn from.

    Attributes:
        cohort: Clients of a round, one drawn uniformly.
        samples: Mean samples of a client, uniform; fewer where the data set is small.
        alpha: Concentration of the Dirichlet partition, log-uniform.
        epochs: Local epochs of a client, uniform; the same for attackers.
        rate: Factor of a client's learning rate, log-uniform; the same for attackers.
        federation_rate: Factor of the whole federation's learning rate, log-uniform.
        poison_share: Share of an attacker's samples that carries the trigger, uniform.
        attacker_share: Share of the clients that is malicious, uniform; at least one attacker.
        clean_share: Share of the federations without attackers.
        stages: Shares of the central training after which the federation starts, one drawn; 3 is
            a model that has long settled.
        rounds: Rounds of a federation.
        warm_rounds: Rounds before those, in which everybody is honest: the model is where the
            averages of skewed clients come to rest, as in a federation that has gone on for long.
        held_back: Share of the benign clients whose updates are not averaged in, uniform: what a
            defence does that is wrong about them.
        oddity: Probability that a benign client of an odd federation is odd.
        oddities: What may be odd about it, one drawn.
        triggers: Trigger families to leave to; empty for all of the modality.
        wrappers: Model poisonings to draw from.
    """

    cohort: tuple[int, ...] = (6, 10, 14, 20, 20)
    samples: Range = (40, 180)
    alpha: Range = (0.1, 10.0)
    epochs: tuple[int, int] = (1, 4)
    rate: Range = (0.5, 2.0)
    federation_rate: Range = (0.5, 1.5)
    poison_share: Range = (0.1, 0.6)
    attacker_share: Range = (0.04, 0.45)
    clean_share: float = 0.15
    stages: tuple[float, ...] = (0.05, 0.12, 0.25, 0.5, 1.0)
    rounds: int = 5
    warm_rounds: int = 0
    held_back: Range = (0.0, 0.0)
    oddity: float = 0.12
    oddities: tuple[str, ...] = ODDITIES[1:]
    triggers: tuple[str, ...] = ()
    wrappers: tuple[str, ...] = WRAPPERS

    def __post_init__(self) -> None:
        """Check the ranges."""
        problems = []
        if not self.cohort or min(self.cohort) < 3:
            problems.append(expected("shadow.cohort", "sizes of 3 or more clients", self.cohort))
        if not 0 < self.alpha[0] <= self.alpha[1]:
            problems.append(expected("shadow.alpha", "a range above 0", self.alpha))
        if not 0 <= self.attacker_share[0] <= self.attacker_share[1] < 0.5:
            problems.append(
                expected("shadow.attacker_share", "a range inside [0, 0.5)", self.attacker_share)
            )
        if self.rounds < 1:
            problems.append(expected("shadow.rounds", "1 or more", self.rounds))
        if self.warm_rounds < 0:
            problems.append(expected("shadow.warm_rounds", "0 or more", self.warm_rounds))
        if not 0 <= self.held_back[0] <= self.held_back[1] <= 0.5:
            problems.append(expected("shadow.held_back", "a range inside [0, 0.5]", self.held_back))
        if not self.oddities:
            problems.append(expected("shadow.oddities", "one or more", self.oddities))
        problems += [
            unknown("shadow.oddities", name, ODDITIES)
            for name in self.oddities
            if name not in ODDITIES
        ]
        raise_all(problems)


EVALUATION = RecipeRanges(
    cohort=(20,),
    samples=(100, 300),
    alpha=(0.2, 5.0),
    epochs=(2, 5),
    rate=(0.7, 2.0),
    federation_rate=(0.8, 1.6),
    poison_share=(0.2, 0.6),
    attacker_share=(0.05, 0.40),
    clean_share=0.25,
    stages=(0.25, 0.5, 1.0),
    rounds=6,
)
"""Ranges of the evaluation: 20 clients, Dirichlet 0.2 to 5, 5 to 40 % attackers, and more local
effort than in training, the same for all. Many of these attacks hardly work all the same; how much
harm an update does is weighed in a figure of its own."""

POTENT = RecipeRanges(
    epochs=(1, 6), rate=(0.5, 2.5), federation_rate=(0.7, 1.8), poison_share=(0.15, 0.7)
)
"""Ranges of training federations in which more happens in a round."""

WORKING = RecipeRanges(
    cohort=(10, 20, 20),
    samples=(150, 350),
    alpha=(0.2, 10.0),
    epochs=(1, 3),
    rate=(0.7, 1.5),
    federation_rate=(0.8, 1.8),
    poison_share=(0.3, 0.8),
    attacker_share=(0.1, 0.45),
    clean_share=0.1,
    stages=(0.5, 1.0, 1.0),
    rounds=4,
    wrappers=tuple(name for name in WRAPPERS if name != "weak"),
)
"""Ranges of training federations in which most backdoors work: clients hold enough samples, poison
enough of them, and meet a model that has learned its task. Where attacks are too feeble to leave a
trace, a detector learns that traces mean little."""

SETTLED = replace(WORKING, stages=(3.0,))
"""Ranges of the same where the model has long settled and knows its clients' samples by heart, as
in a federation that has gone on for long: honest updates are small and unlike each other."""


@dataclass(frozen=True)
class ClientRecipe:
    """How one client trains: effort, oddity, and for attackers the model poisoning."""

    epochs: int
    rate_factor: float
    batch_size: int
    oddity: str = "none"
    wrapper: str | None = None
    strength: float = 0.5
    poison_share: float = 0.3

    def training(self, base: LocalTraining) -> LocalTraining:
        """Return this client's training, from the federation's optimiser and learning rate."""
        epochs = self.epochs * (3 if self.oddity == "long" else 1)
        rate = self.rate_factor * (3.0 if self.oddity == "fast" else 1.0)
        return replace(
            base,
            learning_rate=base.learning_rate * rate,
            epochs=epochs,
            batch_size=self.batch_size,
            max_grad_norm=5.0,  # what keeps real clients from diverging
        )


@dataclass(frozen=True)
class Recipe:
    """One shadow federation.

    Attributes:
        seed: Everything random follows from it.
        architecture: Name in the domain.
        optimiser: Name in `Architecture.rates`.
        rate_factor: Factor of that rate for the whole federation.
        stage: Share of the central training that the global model starts from.
        alpha: Concentration of the Dirichlet partition.
        mean_samples: Mean samples of a client.
        rounds: Rounds.
        aggregate: `"all"`: attackers are averaged in, the backdoor settles; `"honest"`: they are
            not, the global model stays clean.
        trigger: Trigger family.
        starts: First attacked round.
        clients: Recipes of the clients; those with a `wrapper` are malicious.
        warm_rounds: Rounds before the first, in which these are honest, too.
        held_back: Share of the benign clients whose updates are not averaged in, from the middle of
            the warm rounds on.
    """

    seed: int
    architecture: str
    optimiser: str
    rate_factor: float
    stage: float
    alpha: float
    mean_samples: float
    rounds: int
    aggregate: str
    trigger: str
    starts: int
    clients: tuple[ClientRecipe, ...]
    warm_rounds: int = 0
    held_back: float = 0.0

    @property
    def attackers(self) -> list[int]:
        """Indices of the malicious clients."""
        return [i for i, client in enumerate(self.clients) if client.wrapper is not None]

    def facts(self) -> dict[str, Any]:
        """Return the recipe as JSON-ready facts."""
        facts = asdict(self)
        facts["wrappers"] = [client.wrapper for client in self.clients]
        facts["oddities"] = [client.oddity for client in self.clients]
        del facts["clients"]
        return facts


def draw_recipe(
    seed: int, architectures: dict[str, tuple[str, ...]], modality: str, ranges: RecipeRanges
) -> Recipe:
    """Return a random recipe; the same arguments give the same one.

    Args:
        seed: Seed of the draw.
        architectures: Names, each with the optimisers it may be trained with.
        modality: `"image"` or `"text"`; decides the trigger families.
        ranges: What to draw from.
    """
    rng = np.random.default_rng([seed, 7])
    names = sorted(architectures)
    architecture = names[int(rng.integers(len(names)))]
    known: tuple[str, ...] = IMAGE_TRIGGERS if modality == "image" else TEXT_TRIGGERS
    families = tuple(f for f in known if not ranges.triggers or f in ranges.triggers)
    size = int(rng.choice(ranges.cohort))
    attackers = _draw_attackers(rng, size, ranges)
    same_wrapper = str(rng.choice(ranges.wrappers)) if rng.random() < 0.4 else None
    common = _draw_effort(rng, ranges)
    differ = rng.random() < 0.5  # whether clients differ in effort
    attackers_differ = differ or rng.random() < 0.3
    odd = rng.random() < 0.6
    clients = []
    for index in range(size):
        malicious = index in attackers
        effort = (
            _draw_effort(rng, ranges) if (attackers_differ if malicious else differ) else common
        )
        epochs, factor, batch = effort
        if malicious:
            wrapper = same_wrapper or str(rng.choice(ranges.wrappers))
            strength, share = float(rng.random()), float(rng.uniform(*ranges.poison_share))
            clients.append(ClientRecipe(epochs, factor, batch, "none", wrapper, strength, share))
        else:
            is_odd = odd and rng.random() < ranges.oddity
            oddity = str(rng.choice(ranges.oddities)) if is_odd else "none"
            clients.append(ClientRecipe(epochs, factor, batch, oddity))
    return Recipe(
        seed=seed,
        architecture=architecture,
        optimiser=str(rng.choice(sorted(architectures[architecture]))),
        rate_factor=_log_uniform(rng, ranges.federation_rate),
        stage=float(rng.choice(ranges.stages)),
        alpha=_log_uniform(rng, ranges.alpha),
        mean_samples=float(rng.uniform(*ranges.samples)),
        rounds=ranges.rounds,
        aggregate="all" if rng.random() < 0.4 else "honest",
        trigger=str(rng.choice(families)),
        starts=int(rng.choice((1, 1, 1, 2, 3))),
        clients=tuple(clients),
        warm_rounds=ranges.warm_rounds,
        held_back=float(rng.uniform(*ranges.held_back)),
    )


def _draw_attackers(rng: np.random.Generator, size: int, ranges: RecipeRanges) -> set[int]:
    if rng.random() < ranges.clean_share:
        return set()
    count = max(1, round(float(rng.uniform(*ranges.attacker_share)) * size))
    limit = max(1, math.floor(ranges.attacker_share[1] * size))
    return {int(i) for i in rng.choice(size, size=min(count, limit), replace=False)}


def _draw_effort(rng: np.random.Generator, ranges: RecipeRanges) -> tuple[int, float, int]:
    low, high = ranges.epochs
    epochs = int(rng.integers(low, high + 1))
    return epochs, _log_uniform(rng, ranges.rate), int(rng.choice((16, 32, 64)))


def _log_uniform(rng: np.random.Generator, bounds: Range) -> float:
    low, high = np.log(bounds)
    return float(np.exp(rng.uniform(low, high)))
