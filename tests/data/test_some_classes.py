"""Some classes of a data set are a task of their own."""

from functools import partial

import pytest
import torch

from fl_shield.data import digits, some_classes
from fl_shield.data.task import Split, Task
from fl_shield.errors import DataError


def of_labels(split: Split, label: int) -> torch.Tensor:
    return split.inputs[split.labels == label]


def test_classes_keep_their_samples_and_are_numbered_anew() -> None:
    whole = digits.load()
    task = some_classes.load(digits.load, classes=[7, 2, 9])
    assert task.spec.num_classes == 3
    assert task.classes == ("7", "2", "9")
    assert task.spec.input_shape == whole.spec.input_shape
    for new, old in enumerate((7, 2, 9)):
        assert torch.equal(of_labels(task.train, new), of_labels(whole.train, old))
        assert torch.equal(of_labels(task.test, new), of_labels(whole.test, old))
    assert set(task.train.labels.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("classes", [[], [3], [3, 3], [1, 10], [-1, 2]])
def test_classes_that_make_no_task_are_refused(classes: list[int]) -> None:
    load: partial[Task] = partial(some_classes.load, digits.load, classes)
    with pytest.raises(DataError, match="classes"):
        load()
