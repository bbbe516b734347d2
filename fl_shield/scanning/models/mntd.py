"""MNTD, Meta Neural Trojan Detection (Xu et al., S&P 2021): a classifier of classifiers.

Shadow models with and without Jumbo backdoors answer a handful of *queries*; the meta-classifier
reads the answers. Queries are trained together with it (*query tuning*, section IV-C): they end up
where backdoored models answer unlike clean ones. Only models that take the same inputs and have
the same classes as the shadows can be judged.

The robust variant (section VI) draws the first layer of the meta-classifier at random, and keeps it
so: an attacker who knows all but that draw cannot train against it. Keep the seed secret.

Three things differ from the authors' program, since a defender may have hundreds of samples and
shadows, not thousands: answers are read as logarithms of probabilities, whose level does not hang
on the samples and epochs of a training as that of logits does; steps see several shadows; and the
log-odds of a few meta-classifiers, each with queries of its own, are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_shield.activations.penultimate import logits_of
from fl_shield.errors import ConfigurationError, ModelError, expected, raise_all, unknown
from fl_shield.scanning.calibration import conformal_threshold
from fl_shield.scanning.models.base import frozen, limited, require_classes
from fl_shield.scanning.models.queries import query_model, starting_queries
from fl_shield.scanning.models.shadows import Shadow, train_shadows
from fl_shield.scanning.protocol import Held, Level, Scores, not_fitted

Answers = Literal["logits", "probabilities", "log_probabilities"]

FLOOR = -12.0
"""Log-probabilities below it say no more than that."""


@dataclass(frozen=True, kw_only=True)
class MetaClassifierTraining:
    """How the meta-classifiers are trained.

    Attributes:
        queries: Inputs that every model answers.
        hidden: Hidden units.
        epochs: Passes over the shadows.
        batch_size: Shadows in a step; 1 in the authors' program.
        learning_rate: Step size of Adam; 0.001 in the authors' program.
        robust: Whether the first layer stays as it was drawn.
        answers: What is read of a model's answers: `"log_probabilities"`, `"probabilities"`, or
            `"logits"` as published.
        members: Meta-classifiers whose log-odds are averaged; 1 in the paper.
        seed: Seed of queries, weights and order.

    Raises:
        ConfigurationError: if a setting is impossible.
    """

    queries: int = 10
    hidden: int = 20
    epochs: int = 20
    batch_size: int = 16
    learning_rate: float = 1e-2
    robust: bool = False
    answers: Answers = "log_probabilities"
    members: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Check all settings at once."""
        problems = [
            expected(name, "1 or more", getattr(self, name))
            for name in ("queries", "hidden", "epochs", "batch_size", "members")
            if getattr(self, name) < 1
        ]
        if self.answers not in get_args(Answers):
            problems.append(unknown("answers", self.answers, get_args(Answers)))
        if not self.learning_rate > 0:
            problems.append(expected("learning_rate", "above 0", self.learning_rate))
        raise_all(problems)


class MetaClassifier(nn.Module):
    """`w₂ · ReLU(W₁ [f(q₁); …; f(q_k)])` (section IV-B).

    Args:
        queries: `(queries, …)` where the queries start.
        num_classes: Classes of the models.
        training: Sizes, and whether the first layer is fixed.
    """

    def __init__(self, queries: Tensor, num_classes: int, training: MetaClassifierTraining) -> None:
        super().__init__()
        self.queries = nn.Parameter(queries.clone())
        self.answers = training.answers
        self.first = nn.Linear(len(queries) * num_classes, training.hidden)
        self.last = nn.Linear(training.hidden, 1)
        if training.robust:
            nn.init.normal_(self.first.weight, std=self.first.in_features**-0.5)
            self.first.requires_grad_(False)

    def forward(self, logits: Tensor) -> Tensor:
        """Return the log-odds `(models,)` of a backdoor.

        Args:
            logits: `(models, queries, classes)` answers of the models.
        """
        if self.answers == "probabilities":
            logits = logits.softmax(dim=2)
        elif self.answers == "log_probabilities":
            logits = logits.log_softmax(dim=2).clamp_min(FLOOR)
        odds: Tensor = self.last(functional.relu(self.first(logits.flatten(1))))
        return odds[:, 0]


Ask = Callable[[nn.Module, Tensor], Tensor]
"""Returns what a model answers to queries."""


def train_meta_classifier(
    classifier: MetaClassifier,
    shadows: Sequence[Shadow],
    training: MetaClassifierTraining,
    ask: Ask,
    seed: int,
) -> None:
    """Train queries and meta-classifier together, in place (section IV-C, eq. 6).

    Args:
        classifier: What is trained.
        shadows: Models with and without a backdoor.
        training: How.
        ask: How a model is queried.
        seed: Seed of the order.
    """
    variables = [p for p in classifier.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(variables, lr=training.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    truth = torch.tensor([float(shadow.attack is not None) for shadow in shadows])
    for _ in range(training.epochs):
        order = torch.randperm(len(shadows), generator=generator)
        for batch in torch.split(order, training.batch_size):
            optimiser.zero_grad(set_to_none=True)
            answers = [ask(shadows[index].model, classifier.queries) for index in batch.tolist()]
            odds = classifier(torch.stack(answers))
            loss = functional.binary_cross_entropy_with_logits(odds, truth[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()


class Mntd:
    """Scores models by the log-odds of the meta-classifier.

    Args:
        shadows: Shadow models of each kind, with and without a backdoor; 2,048 in the paper.
        calibration: Further clean shadows, for the threshold.
        false_alarms: Share of clean models that may be suspected.
        training: How the meta-classifier is trained.

    Raises:
        ConfigurationError: if a setting is impossible, or there are too few shadows for the rate.
    """

    name: ClassVar[str] = "mntd"
    level: ClassVar[Level] = "model"

    def __init__(
        self,
        *,
        shadows: int = 64,
        calibration: int = 19,
        false_alarms: float = 0.05,
        training: MetaClassifierTraining | None = None,
    ) -> None:
        if shadows < 1:
            raise ConfigurationError(expected("shadows", "1 or more", shadows))
        conformal_threshold(np.zeros(max(calibration, 0)), false_alarms, "shadow models")
        self.shadows, self.calibration, self.false_alarms = shadows, calibration, false_alarms
        self.training = training or MetaClassifierTraining()
        self._classifiers: tuple[MetaClassifier, ...] = ()
        self._held: Held | None = None
        self._threshold = 0.0

    def __repr__(self) -> str:
        return f"Mntd(shadows={self.shadows}, training={self.training!r})"

    def fit(self, held: Held) -> Self:
        """Train shadows, queries and meta-classifier; return the scanner.

        Raises:
            ConfigurationError: if there are no labels, no architecture, a single class or too few
                clean samples.
        """
        require_classes(held, self.name)
        clean = self.shadows + self.calibration
        trained = train_shadows(held, clean, self.shadows, self.name)
        return self.fit_on(held, trained[self.calibration :], trained[: self.calibration])

    def fit_on(self, held: Held, shadows: Sequence[Shadow], calibration: Sequence[Shadow]) -> Self:
        """Train queries and meta-classifier on shadows that are there already.

        Args:
            held: What the defender holds; no labels or architecture are needed.
            shadows: Models with and without a backdoor.
            calibration: Clean models that are not among them.

        Raises:
            ConfigurationError: if shadows of one kind are missing, or there are too few for the
                rate of false alarms.
        """
        if len({shadow.attack is None for shadow in shadows}) < 2:
            raise ConfigurationError(
                expected("shadows", "models with a backdoor and models without", len(shadows))
            )
        frozen_ones = [Shadow(frozen(s.model), s.attack) for s in shadows]
        self._classifiers = tuple(
            self._member(held, frozen_ones, self.training.seed + number)
            for number in range(self.training.members)
        )
        self._held = held
        clean = self.score([shadow.model for shadow in calibration])
        self._threshold = conformal_threshold(clean, self.false_alarms, "shadow models")
        return self

    def score(self, judged: Sequence[nn.Module]) -> Scores:
        """Return `(models,)` log-odds, finite; the models are left as they were.

        Raises:
            ConfigurationError: if the scanner is not fitted.
            ModelError: if a model takes other inputs or has other classes than the shadows.
        """
        if self._held is None:
            raise not_fitted(self.name)
        ask = query_model(self._held)
        return limited([self._log_odds(frozen(model), ask) for model in judged])

    @property
    def threshold(self) -> float:
        """Score above which a model is suspected.

        Raises:
            ConfigurationError: if the scanner is not fitted.
        """
        if self._held is None:
            raise not_fitted(self.name)
        return self._threshold

    def _member(self, held: Held, shadows: Sequence[Shadow], seed: int) -> MetaClassifier:
        """Return one trained meta-classifier."""
        queries = starting_queries(held, self.training.queries, seed, self.name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            classifier = MetaClassifier(queries, held.spec.num_classes, self.training)
        train_meta_classifier(classifier, shadows, self.training, query_model(held), seed)
        return classifier.eval().requires_grad_(False)

    def _log_odds(self, model: nn.Module, ask: Ask) -> float:
        found = []
        for classifier in self._classifiers:
            answers = logits_of(ask(model, classifier.queries))
            wanted = classifier.first.in_features // len(classifier.queries)
            if answers.shape[1] != wanted:
                raise ModelError(
                    expected(
                        "model",
                        f"a model of the shadows' {wanted} classes",
                        f"one of {answers.shape[1]}",
                    )
                )
            found.append(float(classifier(answers[None])))
        return float(np.mean(found))
