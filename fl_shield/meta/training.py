"""Learning the networks of a detector from episode tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from fl_shield.descriptors.plan import matches
from fl_shield.detector.features import FeatureSpec, fit_features
from fl_shield.detector.set_network import SetNetwork
from fl_shield.errors import ConfigurationError, expected
from fl_shield.meta.checkpoint import load_course, save_course
from fl_shield.meta.course import Course
from fl_shield.meta.episodes import Episodes
from fl_shield.meta.settings import MetaTraining
from fl_shield.shadow.table import EpisodeTable

CHECKPOINT_EVERY = 100
"""Steps between checkpoints."""

EXPERT_READS = ("answer_*/searched", "answer_*/patches")
"""Descriptors that experts read: answers to phrases and squares that a search found."""

EXPERT_COLUMN_DROPOUT = 0.1
"""Share of those that is hidden from an expert in a round, at most."""

Progress = Callable[[int, float], None]
"""Called with the number of finished steps and the loss of the last one."""


def train_detector(
    tables: Sequence[EpisodeTable], settings: MetaTraining | None = None
) -> tuple[list[SetNetwork], FeatureSpec]:
    """Return trained networks and the columns that they read.

    Args:
        tables: Training rounds.
        settings: How to train; None for the defaults.

    Raises:
        ConfigurationError: if there is no round, or no attacker in any of them.
    """
    settings = settings or MetaTraining()
    spec = checked_features(tables, settings.leave_out)
    return [train_network(tables, spec, one) for one in members(settings, spec)], spec


def checked_features(tables: Sequence[EpisodeTable], leave_out: Sequence[str] = ()) -> FeatureSpec:
    """Return the columns of training rounds, once it is sure that there is something to learn.

    Args:
        tables: Training rounds.
        leave_out: Descriptors that are not to be read, as in `*@10/*`.

    Raises:
        ConfigurationError: if there is no round, no attacker in any of them, or no column left.
    """
    if not any(table.malicious.any() for table in tables):
        raise ConfigurationError(
            expected("tables", "rounds with attackers among them", f"{len(tables)} rounds without")
        )
    spec = fit_features(tables, leave_out)
    if not spec.names:
        raise ConfigurationError(
            expected("leave_out", "to leave a descriptor of the tables", ", ".join(leave_out))
        )
    return spec


def members(settings: MetaTraining, spec: FeatureSpec) -> list[MetaTraining]:
    """Return the settings of every network of the ensemble, experts last.

    Experts have few columns to learn from: they need a third of the steps, and most of the columns.

    Args:
        settings: Of the ensemble.
        spec: Columns that there are; without answers to searched triggers there are no experts.
    """
    alone = replace(settings, networks=1, experts=0)
    readers = [replace(alone, seed=_seed(settings, i)) for i in range(settings.networks)]
    if not any(matches(name, EXPERT_READS) for name in spec.names):
        return readers
    expert = replace(
        alone,
        reads=EXPERT_READS,
        steps=max(settings.steps // 3, 1),
        column_dropout=min(settings.column_dropout, EXPERT_COLUMN_DROPOUT),
    )
    numbers = range(settings.networks, settings.networks + settings.experts)
    return [*readers, *(replace(expert, seed=_seed(settings, i)) for i in numbers)]


def _seed(settings: MetaTraining, index: int) -> int:
    return 1000 * settings.seed + index


def train_network(
    tables: Sequence[EpisodeTable],
    spec: FeatureSpec,
    settings: MetaTraining,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    start: SetNetwork | None = None,
) -> SetNetwork:
    """Return one trained network, in evaluation mode; the same arguments give the same one.

    Args:
        tables: Training rounds.
        spec: Columns and units to read them with.
        settings: How to train.
        progress: Called after every step.
        checkpoint: File to go on from where it exists, written every `CHECKPOINT_EVERY` steps. A
            training that was interrupted ends with the same weights as one that was not.
        start: A network of these columns to go on from; None for random weights.

    Raises:
        StateError: if the checkpoint is damaged, or belongs to other settings or tables.
    """
    if settings.reads:
        tables = [t for t in tables if any(matches(name, settings.reads) for name in t.names)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        course = Course(Episodes(tables, spec), spec, settings, start)
        if checkpoint is not None and checkpoint.is_file():
            load_course(checkpoint, course)
        while course.done < settings.steps:
            loss = course.step()
            if progress is not None:
                progress(course.done, loss)
            is_due = course.done % CHECKPOINT_EVERY == 0 or course.done == settings.steps
            if checkpoint is not None and is_due:
                save_course(checkpoint, course)
    return course.network.eval()
