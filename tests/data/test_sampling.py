"""Stratified draws against counts worked out by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fl_shield.data.sampling import limited, stratified_indices, stratified_split
from fl_shield.data.task import Split
from fl_shield.errors import DataError


def _split(labels: list[int]) -> Split:
    return Split(torch.arange(len(labels)).unsqueeze(1), torch.tensor(labels))


def test_draw_takes_one_of_each_class_before_a_second() -> None:
    labels = torch.tensor([0] * 10 + [1] * 2 + [2])
    drawn = labels[stratified_indices(labels, 6, seed=1)]
    # Rounds by hand: {0,1,2}, {0,1}, {0}.
    assert torch.bincount(drawn).tolist() == [3, 2, 1]


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=40),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_draws_are_distinct_seeded_and_even(labels: list[int], share: float, seed: int) -> None:
    targets = torch.tensor(labels)
    count = int(share * len(labels))
    drawn = stratified_indices(targets, count, seed)
    assert len(drawn) == count == len(set(drawn.tolist()))
    assert torch.equal(drawn, stratified_indices(targets, count, seed))
    whole = torch.bincount(targets, minlength=5)
    got = torch.bincount(targets[drawn], minlength=5)
    # A class that still has samples is never more than one behind another.
    open_classes = (whole > 0) & (got < whole)
    if open_classes.any():
        assert int(got.max()) - int(got[open_classes].min()) <= 1


def test_another_seed_draws_others() -> None:
    labels = torch.zeros(100, dtype=torch.int64)
    assert not torch.equal(stratified_indices(labels, 10, 0), stratified_indices(labels, 10, 1))


def test_split_is_disjoint_complete_and_stratified() -> None:
    train, test = stratified_split(_split([0] * 20 + [1] * 10), 0.3)
    ids = torch.cat([train.inputs, test.inputs]).flatten()
    assert sorted(ids.tolist()) == list(range(30))
    assert torch.bincount(test.labels).tolist() == [6, 3]


def test_limit_keeps_all_when_it_does_not_bind() -> None:
    split = _split([0, 1, 1])
    assert limited(split, None) is split
    assert limited(split, 3) is split
    assert len(limited(split, 2)) == 2


def test_class_of_one_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"Class number 1 has 1 sample\(s\)"):
        stratified_split(_split([0, 0, 0, 1]), 0.5)


def test_share_too_small_for_the_classes_is_named() -> None:
    with pytest.raises(DataError, match=r"test_share=0\.01 of 6 samples cannot hold each of the 3"):
        stratified_split(_split([0, 0, 1, 1, 2, 2]), 0.01)
