"""The attack: which samples are poisoned, in which rounds, by whom."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fl_shield.attacks.attack import Attack
from fl_shield.attacks.clean_label import CleanLabel
from fl_shield.attacks.model_replacement import ModelReplacement
from fl_shield.attacks.schedule import Schedule
from fl_shield.data.task import Split, Task, TaskSpec
from fl_shield.errors import ConfigurationError
from fl_shield.triggers.dba import Dba
from fl_shield.triggers.patch import Patch


@given(
    labels=st.lists(st.integers(0, 3), max_size=30),
    share=st.floats(0.01, 1.0),
    target=st.integers(0, 3),
    seed=st.integers(0, 100),
)
def test_poisons_the_stated_share_of_other_classes(
    labels: list[int], share: float, target: int, seed: int
) -> None:
    truth = torch.tensor(labels, dtype=torch.int64)
    images = torch.zeros(len(labels), 1, 4, 4)
    attack = Attack(trigger=Patch(size=1), target_class=target, poison_share=share)
    inputs, poisoned = attack.poison(images, truth, torch.Generator().manual_seed(seed))
    triggered = inputs[:, 0, 3, 3] == 1
    others = sum(label != target for label in labels)
    assert int(triggered.sum()) == min(others, max(1, round(share * len(labels))))
    assert bool((truth[triggered] != target).all())
    assert bool((poisoned[triggered] == target).all())
    assert torch.equal(poisoned[~triggered], truth[~triggered])
    assert not images.any()
    assert truth.tolist() == labels
    again, _ = attack.poison(images, truth, torch.Generator().manual_seed(seed))
    assert torch.equal(again, inputs)


def test_clean_label_triggers_the_target_class_and_keeps_labels() -> None:
    attack = Attack(trigger=Patch(size=1), target_class=1, poison_share=1.0, goal=CleanLabel())
    labels = torch.tensor([0, 1, 1, 2])
    inputs, poisoned = attack.poison(torch.zeros(4, 1, 4, 4), labels)
    assert (inputs[:, 0, 3, 3] == 1).tolist() == [False, True, True, False]
    assert torch.equal(poisoned, labels)
    assert attack.goal.victims(labels, 1).tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("schedule", "rounds"),
    [
        (Schedule(), [1, 2, 3, 4, 5, 6, 7, 8]),
        (Schedule(first_round=3, every=2), [3, 5, 7]),
        (Schedule(first_round=2, last_round=6, every=3), [2, 5]),
        (Schedule(first_round=4, last_round=4), [4]),
    ],
)
def test_schedule(schedule: Schedule, rounds: list[int]) -> None:
    attack = Attack(trigger=Patch(), schedule=schedule)
    assert [number for number in range(1, 9) if attack.active(number)] == rounds


def test_parts_of_a_distributed_trigger_are_dealt_out() -> None:
    attack = Attack(trigger=Dba())
    assert [attack.for_attacker(i).trigger for i in range(5)] == [Dba(only=i % 4) for i in range(5)]
    plain = Attack(trigger=Patch())
    assert plain.for_attacker(3) == plain


def test_legend_and_repr() -> None:
    attack = Attack(trigger=Patch(), target_class=7)
    assert str(attack) == "patch 3x3 → class 7"
    boosted = Attack(trigger=Patch(), model_poisoning=ModelReplacement(boost=5))
    assert str(boosted) == "patch 3x3 → class 0, boosted x5"
    assert "target_class=7" in repr(attack)


def test_bind_checks_target_and_trigger() -> None:
    split = Split(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.tensor([0]))
    task = Task("tiny", TaskSpec("image", (1, 8, 8), 2), split, split, ("a", "b"))
    assert Attack(trigger=Patch(), target_class=1).bind(task).target_class == 1
    with pytest.raises(ConfigurationError, match=r"below the 2 classes of tiny, got 2"):
        Attack(trigger=Patch(), target_class=2).bind(task)
    with pytest.raises(ConfigurationError, match=r"inside the 8x8 images"):
        Attack(trigger=Patch(size=20)).bind(task)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"poison_share": 0.0}, r"above 0 and at most 1, got 0\.0.*number of attackers to 0"),
        ({"poison_share": 1.1}, r"got 1\.1"),
        ({"target_class": -1}, r"a class index, got -1"),
        ({"trigger": None}, r"`attack\.trigger`.*trigger=patch"),
    ],
)
def test_impossible_attacks_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Attack(**({"trigger": Patch()} | settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"first_round": 0}, r"schedule\.first_round.*got 0"),
        ({"first_round": 5, "last_round": 4}, r"at least first_round=5, got 4"),
        ({"every": 0}, r"schedule\.every.*got 0"),
    ],
)
def test_impossible_schedules_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Schedule(**settings)
