"""Settings of meta-training."""

from __future__ import annotations

from dataclasses import dataclass

from fl_shield.detector.set_network import HEADS
from fl_shield.errors import ConfigurationError, expected, raise_all, unknown

ALGORITHMS = ("multi_task", "reptile", "fomaml", "anil")
"""Outer loops to choose from; described in `fl_shield.meta.algorithms`."""


@dataclass(frozen=True, kw_only=True)
class MetaTraining:
    """How a detector is learned from episode tables.

    Attributes:
        algorithm: One of `ALGORITHMS`.
        networks: Networks of the ensemble that read all descriptors, each from its own seed.
        experts: Networks besides that read the answers to searched triggers only; none where no
            round has any.
        steps: Outer steps of each network.
        rounds: Rounds in a step of `multi_task`; rounds of each task in the others.
        tasks: Tasks (federations) in a step; not used by `multi_task`.
        inner_steps: Inner steps on a task's support; not used by `multi_task`.
        inner_rate: Learning rate of the inner steps.
        learning_rate: Highest learning rate of the outer steps (one cycle, AdamW).
        weight_decay: Weight decay of the outer steps.
        hidden: Width of the networks, a multiple of `HEADS`.
        dropout: Share of units dropped in training.
        column_dropout: Share of descriptors hidden from the network in a round.
        reads: Descriptors that a network looks at; empty for all. Experts have it set.
        leave_out: Descriptors that are not to be read, as in `*@10/*` or `*/jumbo`; a shield with
            the detector does not look there, which saves its time.
        seed: Everything random follows from it.

    Raises:
        ConfigurationError: naming every value that is out of range.
    """

    algorithm: str = "multi_task"
    networks: int = 3
    experts: int = 2
    steps: int = 1500
    rounds: int = 24
    tasks: int = 6
    inner_steps: int = 3
    inner_rate: float = 0.01
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    hidden: int = 64
    dropout: float = 0.15
    column_dropout: float = 0.1
    reads: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        """Check all values at once."""
        problems = []
        for name in ("reads", "leave_out"):
            patterns = getattr(self, name)
            if isinstance(patterns, str):
                problems.append(expected(name, "a list of patterns", repr(patterns)))
            object.__setattr__(self, name, tuple(patterns))  # lists of settings, too
        if self.experts < 0:
            problems.append(expected("meta_training.experts", "0 or more", self.experts))
        if self.algorithm not in ALGORITHMS:
            problems.append(unknown("meta-training algorithm", self.algorithm, ALGORITHMS))
        problems += [
            expected(f"meta_training.{name}", "1 or more", getattr(self, name))
            for name in ("networks", "steps", "rounds", "tasks", "inner_steps", "hidden")
            if not getattr(self, name) >= 1
        ]
        problems += [
            expected(f"meta_training.{name}", "above 0", getattr(self, name))
            for name in ("inner_rate", "learning_rate")
            if not getattr(self, name) > 0.0
        ]
        problems += [
            expected(f"meta_training.{name}", "at least 0 and below 1", getattr(self, name))
            for name in ("dropout", "column_dropout", "weight_decay")
            if not 0.0 <= getattr(self, name) < 1.0
        ]
        if self.hidden % HEADS:
            wanted = f"a multiple of {HEADS}"
            problems.append(expected("meta_training.hidden", wanted, self.hidden))
        raise_all(problems, ConfigurationError)
