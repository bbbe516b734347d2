"""Goals by hand: who is poisoned, who is judged, and which class counts as success."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fl_shield.attacks.all_to_all import AllToAll
from fl_shield.attacks.all_to_one import AllToOne
from fl_shield.attacks.attack import Attack
from fl_shield.attacks.clean_label import CleanLabel
from fl_shield.attacks.goal import Goal
from fl_shield.attacks.label_flip import LabelFlip
from fl_shield.attacks.one_to_one import OneToOne
from fl_shield.data.task import Split, Task, TaskSpec
from fl_shield.errors import ConfigurationError
from fl_shield.metrics.backdoor import attack_success_rate
from fl_shield.triggers.patch import Patch
from fl_shield.triggers.untouched import Untouched

CLASSES = 5
GOALS: list[Goal] = [AllToOne(), CleanLabel(), OneToOne(source=3), AllToAll(), LabelFlip()]
GOALS += [LabelFlip(source=3)]


def task(classes: int = CLASSES) -> Task:
    split = Split(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
    spec = TaskSpec("image", (1, 4, 4), classes)
    return Task("tiny", spec, split, split, tuple("abcdefghij"[:classes]))


@pytest.mark.parametrize(
    ("goal", "eligible", "victims", "wanted"),
    [
        (AllToOne(), [0, 1, 3, 4], [0, 1, 3, 4], [2, 2, 2, 2]),
        (CleanLabel(), [2], [0, 1, 3, 4], [2, 2, 2, 2]),
        (OneToOne(source=3), [3], [3], [2]),
        (AllToAll(), [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [1, 2, 3, 4, 0]),
        (LabelFlip(), [0, 1, 3, 4], [0, 1, 3, 4], [4, 3, 1, 0]),
        (LabelFlip(source=3), [3], [3], [2]),
    ],
    ids=repr,
)
def test_by_hand_with_target_2_of_5(
    goal: Goal, eligible: list[int], victims: list[int], wanted: list[int]
) -> None:
    bound, labels = goal.bind(task(), 2), torch.arange(CLASSES)
    assert labels[bound.eligible(labels, 2)].tolist() == eligible
    judged = labels[bound.victims(labels, 2)]
    assert judged.tolist() == victims
    assert bound.wanted(judged, 2).tolist() == wanted


class Table(nn.Module):
    """Answers with the class in the first pixel, or what a table says when the last is bright."""

    def __init__(self, triggered: list[int]) -> None:
        super().__init__()
        self.triggered = torch.tensor(triggered)

    def forward(self, images: Tensor) -> Tensor:
        label = (images[:, 0, 0, 0] * 255).round().long()
        answer = torch.where(images[:, 0, -1, -1] > 0.9, self.triggered[label], label)
        return nn.functional.one_hot(answer, CLASSES).float()


def shown(labels: list[int]) -> Split:
    images = torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor(labels, dtype=torch.uint8)
    return Split(images, torch.tensor(labels))


@pytest.mark.parametrize(
    ("goal", "triggered", "rate"),
    [
        (AllToOne(), [2, 2, 2, 0, 0], 3 / 5),  # 0, 0 and 1 of the five that are not class 2
        (OneToOne(source=3), [2, 2, 2, 2, 2], 1.0),
        (OneToOne(source=0), [2, 0, 0, 0, 0], 1.0),  # nothing is asked of other classes
        (OneToOne(source=0), [1, 2, 2, 2, 2], 0.0),
        (AllToAll(), [1, 2, 3, 4, 0], 1.0),
        (AllToAll(), [1, 1, 3, 4, 4], 4 / 6),  # both zeros, the two and the three
    ],
    ids=repr,
)
def test_success_is_measured_on_the_goal_s_samples(
    goal: Goal, triggered: list[int], rate: float
) -> None:
    attack = Attack(trigger=Patch(size=1), target_class=2, goal=goal).bind(task())
    split = shown([0, 0, 1, 2, 3, 4])
    assert attack_success_rate(Table(triggered), split, attack) == pytest.approx(rate)


def test_flipped_labels_are_judged_on_clean_inputs() -> None:
    attack = Attack(trigger=Untouched(), goal=LabelFlip()).bind(task())
    obedient, honest = Table([0] * CLASSES), shown([0, 1, 2, 3, 4])
    assert attack_success_rate(obedient, honest, attack) == 0.0
    mirrored = Split(shown([4, 3, 2, 1, 0]).inputs, honest.labels)
    assert attack_success_rate(obedient, mirrored, attack) == 1.0


def test_nobody_to_judge() -> None:
    attack = Attack(trigger=Patch(size=1), goal=OneToOne(source=4)).bind(task())
    assert attack_success_rate(Table([0] * CLASSES), shown([1, 2]), attack) is None


@given(
    labels=st.lists(st.integers(0, CLASSES - 1), max_size=30),
    goal=st.sampled_from(GOALS),
    target=st.sampled_from([0, 1, 2, 4]),
)
def test_poisoned_samples_have_the_class_wanted(labels: list[int], goal: Goal, target: int) -> None:
    """Victims are never those that have the class wanted already: success would prove nothing."""
    truth = torch.tensor(labels, dtype=torch.int64)
    attack = Attack(trigger=Patch(size=1), target_class=target, poison_share=1.0, goal=goal)
    bound = attack.bind(task()).goal
    wanted = bound.wanted(truth, target)
    assert bool(((wanted >= 0) & (wanted < CLASSES)).all())
    victims = bound.victims(truth, target)
    assert not bool((victims & (wanted == truth)).any())
    images = torch.zeros(len(labels), 1, 4, 4)
    inputs, poisoned = attack.bind(task()).poison(images, truth)
    triggered = inputs[:, 0, 3, 3] == 1
    assert torch.equal(triggered, bound.eligible(truth, target))
    assert torch.equal(poisoned, torch.where(triggered, wanted, truth))


def test_two_classes_are_enough_for_every_goal() -> None:
    labels = torch.tensor([0, 1, 1])
    for goal in (AllToOne(), OneToOne(source=1), AllToAll(), LabelFlip()):
        bound = goal.bind(task(2), 0)
        victims = bound.victims(labels, 0)
        assert torch.equal(bound.wanted(labels, 0)[victims], 1 - labels[victims])


@pytest.mark.parametrize(
    ("goal", "legend"),
    [
        (AllToOne(), "class 2"),
        (CleanLabel(), "class 2, clean-label"),
        (OneToOne(source=3), "class 2 for 3"),
        (AllToAll(), "next class"),
    ],
    ids=repr,
)
def test_legends_and_repr(goal: Goal, legend: str) -> None:
    assert str(Attack(trigger=Patch(), target_class=2, goal=goal)) == f"patch 3x3 → {legend}"
    assert eval(repr(goal)) == goal
    flips = [Attack(trigger=Untouched(), goal=LabelFlip(source=s)) for s in (None, 3)]
    assert list(map(str, flips)) == ["no trigger → mirrored labels", "no trigger → label 0 for 3"]


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        (OneToOne(source=5), r"one of the 5 classes of tiny.*not the target class 2, got 5"),
        (OneToOne(source=2), r"got 2\. Set goal\.source or attack\.target_class"),
        (OneToOne(source=-1), r"`attack\.goal\.source`.*got -1"),
        (LabelFlip(source=2), r"not the target class 2, got 2"),
    ],
    ids=repr,
)
def test_a_source_that_cannot_be_is_refused(goal: Goal, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Attack(trigger=Patch(), target_class=2, goal=goal).bind(task())


@pytest.mark.parametrize("goal", [AllToAll(), LabelFlip()], ids=repr)
def test_unbound_goals_that_count_classes_are_refused(goal: Goal) -> None:
    with pytest.raises(ConfigurationError, match=r"not bound.*goal\.bind\(task, target_class\)"):
        goal.wanted(torch.tensor([0]), 0)


def test_what_is_no_goal_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"`attack\.goal`.*goal=all_to_one"):
        Attack(trigger=Patch(), goal=None)  # type: ignore[arg-type]
