"""Some classes of another data set: a task of its own, with fewer classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from fl_shield.data.task import Split, Task
from fl_shield.errors import DataError, expected


def load(of: Callable[[], Task], classes: Sequence[int]) -> Task:
    """Return the samples of these classes, labelled 0, 1, … in the order given.

    Args:
        of: Loads the whole data set.
        classes: Labels of the classes to keep, two or more.

    Raises:
        DataError: if there are fewer than two classes, or one twice or not in the data set.
    """
    whole = of()
    known = whole.spec.num_classes
    if len(set(classes)) < 2 or len(set(classes)) < len(classes):
        raise DataError(expected("data.classes", "two or more different classes", list(classes)))
    if any(not 0 <= label < known for label in classes):
        raise DataError(expected("data.classes", f"labels from 0 to {known - 1}", list(classes)))
    return replace(
        whole,
        name=f"{whole.name}, {len(classes)} classes",
        spec=replace(whole.spec, num_classes=len(classes)),
        train=_kept(whole.train, classes, known),
        test=_kept(whole.test, classes, known),
        classes=tuple(whole.classes[label] for label in classes),
    )


def _kept(split: Split, classes: Sequence[int], known: int) -> Split:
    new = torch.full((known,), -1, dtype=torch.int64)
    new[torch.tensor(classes)] = torch.arange(len(classes))
    labels = new[split.labels]
    kept = (labels >= 0).nonzero().flatten()
    return Split(split.inputs[kept], labels[kept])
