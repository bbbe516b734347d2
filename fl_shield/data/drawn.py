"""Image tasks that are drawn, class by class, from a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fl_shield.data.cache import cached_splits
from fl_shield.data.sampling import limited, stratified_split
from fl_shield.data.task import Split, Task, TaskSpec
from fl_shield.errors import DataError, expected

SIZE = 32
"""Sides of a drawn image in pixels."""

Draw = Callable[[int, np.random.Generator], NDArray[np.uint8]]
"""Returns one `(32, 32, 3)` image of a class, given by its index."""


def drawn_task(
    name: str,
    classes: Sequence[str],
    draw: Draw,
    samples_per_class: int,
    test_share: float,
    seed: int,
    max_train: int | None,
    max_test: int | None,
) -> Task:
    """Return a task of images 3x32x32, drawn once and then read from the cache.

    Args:
        name: Name of the task, and of its entry in the cache.
        classes: Names of the classes.
        draw: Draws an image of a class.
        samples_per_class: Images of each class.
        test_share: Share of the images held out for evaluation.
        seed: Seed of the drawing.
        max_train: Limit of the training images; None for all.
        max_test: Limit of the test images; None for all.

    Raises:
        DataError: if `samples_per_class` is below 10.
    """
    if samples_per_class < 10:
        raise DataError(expected("data.samples_per_class", "10 or more", samples_per_class))

    def build() -> tuple[Split, Split, tuple[str, ...]]:
        rng = np.random.default_rng(seed)
        labels = torch.arange(len(classes)).repeat_interleave(samples_per_class)
        images = [draw(label, rng) for label in labels.tolist()]
        inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
        return *stratified_split(Split(inputs, labels), test_share), tuple(classes)

    key = {"loader": name, "samples": samples_per_class, "share": test_share, "seed": seed}
    train, test, named = cached_splits(key, build)
    return Task(
        name=name,
        spec=TaskSpec("image", (3, SIZE, SIZE), len(named)),
        train=limited(train, max_train),
        test=limited(test, max_test),
        classes=named,
    )
