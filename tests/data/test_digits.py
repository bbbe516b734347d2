"""The embedded digits are whole, split by class, and the same every time."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from fl_shield.data.digits import load
from fl_shield.errors import DataError


def test_train_and_test_hold_every_digit_image_once() -> None:
    task = load()
    both = torch.cat([task.train.inputs, task.test.inputs]).flatten(1).numpy()
    # Independent truth: 17 grey levels scaled to bytes, compared as multisets of rows.
    truth = np.rint(load_digits().data * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, both)) == sorted(map(bytes, truth))


def test_images_keep_their_labels() -> None:
    task = load()
    data = load_digits()
    pixels = np.rint(data.data * 255 / 16).astype(np.uint8)
    label_of = dict(zip(map(bytes, pixels), data.target, strict=True))
    rows = task.test.inputs.flatten(1).numpy()
    assert [label_of[bytes(row)] for row in rows] == task.test.labels.tolist()


def test_split_is_stratified_and_fixed() -> None:
    first, second = load(), load()
    assert torch.equal(first.train.inputs, second.train.inputs)
    share = torch.bincount(first.test.labels) / torch.bincount(
        torch.cat([first.train.labels, first.test.labels])
    )
    assert torch.all((share - 0.3).abs() < 0.01)


def test_spec_says_what_the_tensors_are() -> None:
    task = load(max_train=50, max_test=20)
    assert task.train.inputs.shape == (50, *task.spec.input_shape)
    assert task.train.inputs.dtype == torch.uint8
    assert task.train.labels.dtype == torch.int64
    assert (len(task.test), task.spec.num_classes, task.classes[3]) == (20, 10, "3")
    assert torch.bincount(task.train.labels).tolist() == [5] * 10


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 2.0])
def test_share_outside_its_range_is_named(share: float) -> None:
    with pytest.raises(DataError, match=rf"test_share.*between 0 and 1, got {share}"):
        load(test_share=share)


@pytest.mark.parametrize("limit", [0, -3])
def test_limit_below_one_is_named(limit: int) -> None:
    with pytest.raises(DataError, match=rf"max_train.*1 or more.*got {limit}"):
        load(max_train=limit)
