"""Stratified splits and subsamples: every class keeps its share, and a seed its samples."""

from __future__ import annotations

import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from fl_shield.data.task import Split
from fl_shield.errors import DataError, expected

SPLIT_SEED = 0
"""Data sets are split the same way for every run seed, so that runs stay comparable."""


def stratified_split(split: Split, test_share: float) -> tuple[Split, Split]:
    """Return a training and a test part, each with the class shares of the whole.

    Raises:
        DataError: if `test_share` is not between 0 and 1 or so small that a class would be left
            out, or if a class has fewer than two samples.
    """
    if not 0 < test_share < 1:
        raise DataError(expected("data.test_share", "between 0 and 1", test_share, "Set 0.2."))
    counts = torch.bincount(split.labels)
    if int(counts.min()) < 2:
        raise DataError(
            f"Class number {int(counts.argmin())} has {int(counts.min())} sample(s), but a split "
            "needs two of each. Add samples, or give training and test data apart."
        )
    try:
        train, test = train_test_split(
            torch.arange(len(split)),
            test_size=test_share,
            stratify=split.labels,
            random_state=SPLIT_SEED,
        )
    except ValueError as error:
        raise DataError(
            f"data.test_share={test_share} of {len(split)} samples cannot hold each of the "
            f"{len(counts)} classes. Add samples, or give training and test data apart."
        ) from error
    return split.take(train), split.take(test)


def stratified_indices(labels: Tensor, count: int, seed: int) -> Tensor:
    """Return `count` distinct indices that draw on the classes as evenly as they allow.

    Args:
        labels: `(samples,)` class indices.
        count: How many to draw, at most the number of samples.
        seed: Seed of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    rank = torch.empty(len(labels), dtype=torch.int64)
    for label in torch.unique(labels):
        members = order[labels[order] == label]
        rank[members] = torch.arange(len(members))
    # First one of each class, then a second of each, and so on.
    return order[torch.argsort(rank[order], stable=True)][:count]


def limited(split: Split, count: int | None) -> Split:
    """Return at most `count` samples, evenly over classes; all of them when None.

    Raises:
        DataError: if `count` is below 1.
    """
    if count is not None and count < 1:
        raise DataError(
            expected("data.max_train and data.max_test", "1 or more, or null for all", count)
        )
    if count is None or count >= len(split):
        return split
    return split.take(stratified_indices(split.labels, count, SPLIT_SEED))
