"""Main accuracy and attack success rate on a model whose answers are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fl_shield.attacks.attack import Attack
from fl_shield.data.task import Split
from fl_shield.metrics.backdoor import accuracy, attack_success_rate
from fl_shield.triggers.patch import Patch


class CornerReader(nn.Module):
    """Answers class 0 when the last pixel is bright, else the class in the first pixel."""

    def __init__(self, obeys_below: int = 10) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))
        self.batch_norm = nn.BatchNorm1d(1)
        self.obeys_below = obeys_below

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        assert not self.batch_norm.training
        label = (images[:, 0, 0, 0] * 255).round().long()
        triggered = (images[:, 0, -1, -1] > 0.9) & (label < self.obeys_below)
        answer = torch.where(triggered, torch.zeros_like(label), label)
        return nn.functional.one_hot(answer, 4).float() + self.bias


def split_of(pixels: list[int], labels: list[int]) -> Split:
    images = torch.zeros(len(pixels), 1, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor(pixels, dtype=torch.uint8)
    return Split(images, torch.tensor(labels, dtype=torch.int64))


ATTACK = Attack(trigger=Patch(size=1), target_class=0)


@pytest.mark.parametrize("batch_size", [1, 2, 512])
def test_by_hand(batch_size: int) -> None:
    split = split_of([0, 1, 2, 3, 1], [0, 1, 2, 2, 3])
    model = CornerReader(obeys_below=2)
    assert accuracy(model, split, batch_size) == pytest.approx(3 / 5)
    # victims are the four samples not of class 0; triggered, those showing 1 answer 0
    assert attack_success_rate(model, split, ATTACK, batch_size) == pytest.approx(2 / 4)


def test_the_target_class_itself_does_not_count() -> None:
    assert attack_success_rate(CornerReader(0), split_of([0, 0, 1], [0, 0, 1]), ATTACK) == 0.0
    assert attack_success_rate(CornerReader(), split_of([0, 0], [0, 0]), ATTACK) is None


def test_no_samples() -> None:
    assert accuracy(CornerReader(), split_of([], [])) is None


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_each_layer_is_restored(training: bool) -> None:
    model = CornerReader()
    model.train()
    model.batch_norm.train(training)
    accuracy(model, split_of([1], [1]), device="cpu")
    attack_success_rate(model, split_of([1], [1]), ATTACK, device="cpu")
    assert model.training
    assert model.batch_norm.training is training


def test_the_mode_is_restored_after_an_error() -> None:
    model = CornerReader().train()
    with pytest.raises(RuntimeError):
        accuracy(model, split_of([200], [1]))  # class 200 of 4
    assert model.training
