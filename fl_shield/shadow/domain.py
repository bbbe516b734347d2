"""A domain: a data set, and the architectures that shadow tasks train on it.

Adding one is a file in `conf/domain/`, and a loader if the data are of a new kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from fl_shield.data.task import Task, TaskSpec
from fl_shield.errors import expected, raise_all, unknown
from fl_shield.training.local import LocalTraining

OPTIMISERS: Mapping[str, LocalTraining] = {
    "sgd": LocalTraining(optimiser="sgd"),
    "momentum": LocalTraining(optimiser="sgd", momentum=0.9),
    "adam": LocalTraining(optimiser="adam"),
}
"""The local optimisers that shadow clients use, by the names that `Architecture.rates` has."""


@dataclass(frozen=True)
class Architecture:
    """A model of a domain and how it is trained there.

    Attributes:
        model: Builds the model for a task.
        rates: Learning rate for each local optimiser (`"sgd"`, `"momentum"`, `"adam"`) that suits
            it; shadow clients draw from a range around it.
        epochs: Passes of central training after which the model is well trained.
    """

    model: Callable[[TaskSpec], nn.Module]
    rates: Mapping[str, float]
    epochs: float = 4.0

    def __post_init__(self) -> None:
        """Check the settings."""
        problems = [
            unknown("architecture.rates", name, OPTIMISERS)
            for name in self.rates
            if name not in OPTIMISERS
        ]
        if not self.rates:
            problems.append(expected("architecture.rates", "at least one optimiser", {}))
        if not self.epochs > 0:
            problems.append(expected("architecture.epochs", "above 0", self.epochs))
        raise_all(problems)


@dataclass(frozen=True)
class Domain:
    """A data set with the architectures that shadow tasks train on it.

    Attributes:
        name: Its name in tables and cards.
        load: Loads the task; called once.
        architectures: By name.
    """

    name: str
    load: Callable[[], Task]
    architectures: Mapping[str, Architecture] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that there is something to train."""
        if not self.architectures:
            raise_all([expected(f"domain {self.name}", "one or more architectures", "none")])

    @cached_property
    def task(self) -> Task:
        """The task, loaded when first asked for."""
        return self.load()
