"""The attacker that knows the shield: its penalty by hand, its projections as geometry."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from fl_shield.attacks.attack import Attack
from fl_shield.attacks.detector_aware import DetectorAware, Probe, noise_like, turn_towards
from fl_shield.data.digits import load
from fl_shield.data.task import Split
from fl_shield.metrics.backdoor import attack_success_rate
from fl_shield.models.digits_cnn import DigitsCnn
from fl_shield.training.local import LocalTraining, train_locally
from fl_shield.triggers.patch import Patch
from tests.attacks._attackers import NOTHING, knowing

vectors = arrays(np.float64, 4, elements=st.floats(-10, 10, allow_subnormal=False))


@given(vector=vectors, axis=vectors, least=st.floats(-1, 0.99))
def test_turning_keeps_the_length_and_meets_the_cosine(
    vector: np.ndarray[tuple[int], np.dtype[np.float64]],
    axis: np.ndarray[tuple[int], np.dtype[np.float64]],
    least: float,
) -> None:
    before, wanted = torch.from_numpy(vector), torch.from_numpy(axis)
    if min(float(before.norm()), float(wanted.norm())) < 1e-3:
        return
    turned = turn_towards(before, wanted, least)
    cosine = float(turned @ wanted / turned.norm() / wanted.norm()) if turned.any() else least
    assert cosine >= least - 1e-6 or least < 0
    if float(before @ wanted / before.norm() / wanted.norm()) >= least:
        assert torch.equal(turned, before)
    elif float((before / before.norm() + wanted / wanted.norm()).norm()) > 1e-6:
        assert float(turned.norm()) == pytest.approx(float(before.norm()))
        assert cosine == pytest.approx(least, abs=1e-6)


def test_turning_by_hand() -> None:
    turned = turn_towards(torch.tensor([0.0, 5.0]), torch.tensor([2.0, 0.0]), 0.6)
    assert turned.tolist() == pytest.approx([3.0, 4.0])
    zero = torch.zeros(2)
    assert torch.equal(turn_towards(zero, torch.ones(2), 0.6), zero)
    assert torch.equal(turn_towards(torch.ones(2), zero, 0.6), torch.ones(2))


def linear() -> nn.Linear:
    """Return two outputs that begin at nothing; its features are its inputs."""
    model = nn.Linear(2, 2, bias=False)
    model.weight.data.zero_()
    return model


CLEAN = Split(torch.eye(2), torch.tensor([0, 1]))
HONEST = {"weight": torch.tensor([[2.0, 0.0], [0.0, 0.0]])}


def penalty_of(update: Tensor, strength: float = 0.1) -> tuple[Tensor | None, nn.Linear]:
    """Return the penalty of an update on clean samples alone, as noise is no case for the hand."""
    model, zero = linear(), {"weight": torch.zeros(2, 2)}
    probe = Probe(linear(), "", torch.eye(2), zero).expecting(HONEST, [1.0, 4.0])
    attack = DetectorAware(weight=strength, benign=HONEST, probe=probe)
    model.weight.data = update
    return attack.penalty(model, zero, *NOTHING), model


def test_penalty_by_hand() -> None:
    """A linear model answers in proportion: |d - b| / |b| at every scale; features agree."""
    penalty, model = penalty_of(torch.tensor([[3.5, 2.0], [0.0, 0.0]]), 0.5)
    assert penalty is not None
    assert float(penalty.detach()) == pytest.approx(0.5 * (2.5 / 2 + 0) / 2, abs=1e-4)
    penalty.backward()  # type: ignore[no-untyped-call]
    assert model.weight.grad is not None
    # 0.5 / 2 / |b| times the unit vector (0.6, 0.8) of d - b.
    wanted = [0.125 * 0.6, 0.125 * 0.8, 0.0, 0.0]
    assert model.weight.grad.flatten().tolist() == pytest.approx(wanted, abs=1e-6)


def test_nothing_to_hide_at_the_honest_update() -> None:
    penalty, _ = penalty_of(HONEST["weight"].clone())
    assert penalty is not None
    assert float(penalty.detach()) == pytest.approx(0.0, abs=1e-4)
    assert penalty_of(torch.ones(2, 2), 0.0)[0] is None


def test_norm_and_cosine_of_what_is_sent() -> None:
    attack = DetectorAware(max_norm=1.5, min_cosine=0.6).begin(
        linear(), knowing(samples=CLEAN, benign=[HONEST])
    )
    zero = {"weight": torch.zeros(2, 2)}
    crafted = attack.craft(zero, {"weight": torch.tensor([[0.0, 5.0], [0.0, 0.0]])})
    assert crafted["weight"].flatten().tolist() == pytest.approx([1.8, 2.4, 0.0, 0.0])
    short = {"weight": torch.tensor([[0.6, 0.8], [0.0, 0.0]])}
    assert attack.craft(zero, short)["weight"].flatten().tolist() == pytest.approx(
        [0.6, 0.8, 0.0, 0.0]
    )


def test_noise_is_like_the_inputs() -> None:
    images = torch.full((3, 1, 4, 4), 0.5)
    noise = noise_like(images)
    assert noise.shape == images.shape
    assert 0 <= float(noise.min()) < float(noise.max()) <= 1
    tokens = torch.arange(12).view(3, 4)
    assert noise_like(tokens).flatten().sort().values.tolist() == list(range(12))


def test_the_penalty_makes_the_update_answer_like_an_honest_one() -> None:
    """A whole local training on digits: the backdoor is learned, the answers are those of honesty.

    The attacker's honest training is at hand: its seed is that of the attack plus one.
    """
    task = load()
    start = DigitsCnn(task.spec)
    rough = LocalTraining(learning_rate=0.02, momentum=0.9, epochs=15, batch_size=16)
    train_locally(start, task.train.take(torch.arange(200)), rough, seed=0)
    split, training = task.train.take(torch.arange(300, 380)), replace(rough, epochs=3)
    honest = copy.deepcopy(start)
    train_locally(honest, split, training, seed=4)
    trained = {name: p.detach() for name, p in honest.named_parameters()}
    judge = DetectorAware().begin(start.eval(), knowing(samples=split, benign=[trained]))
    assert judge.probe is not None
    differences, rates = [], []
    for weight in (0.0, 1.0):
        model, plan = copy.deepcopy(start), DetectorAware(weight=weight, min_cosine=-1.0)
        attack = Attack(trigger=Patch(), model_poisoning=plan).bind(task)
        train_locally(model, split, training, seed=3, attack=attack)
        before = dict(start.named_parameters())
        update = {n: (p - before[n]).detach() for n, p in model.named_parameters()}
        assert norm(update) <= norm(judge.benign) * (1 + 1e-4)
        differences.append(float(judge.probe.difference(update)))
        rates.append(attack_success_rate(model, task.test, attack) or 0.0)
    assert differences[1] < 0.75 * differences[0]
    assert min(rates) > 0.8


def norm(update: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(move.square().sum()) for move in update.values()))
