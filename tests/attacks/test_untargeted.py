"""Untargeted attacks, the sanity class."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fl_shield.attacks.attack import Attack
from fl_shield.attacks.gaussian_noise import GaussianNoise
from fl_shield.attacks.sign_flip import SignFlip
from fl_shield.data.task import Split
from fl_shield.training.local import LocalTraining, train_locally
from fl_shield.triggers.patch import Patch
from tests.attacks._attackers import knowing, line


def test_sign_flip_turns_the_honest_update_not_the_poisoned_one() -> None:
    honest = {"weight": torch.tensor([[2.0, 4.0]])}
    attack = SignFlip(boost=3.0).begin(line(1.0, 1.0), knowing(benign=[honest]))
    reference = {"weight": torch.tensor([[1.0, 1.0]])}
    crafted = attack.craft(reference, {"weight": torch.tensor([[9.0, 9.0]])})
    assert crafted["weight"].tolist() == [[1.0 - 3.0 * 1.0, 1.0 - 3.0 * 3.0]]


def test_noise_has_the_stated_deviation_around_the_global_model() -> None:
    torch.manual_seed(0)
    reference = {"weight": torch.full((20_000,), 3.0)}
    crafted = GaussianNoise(deviation=0.5).craft(reference, {"weight": torch.zeros(20_000)})
    assert float(crafted["weight"].mean()) == pytest.approx(3.0, abs=0.02)
    assert float(crafted["weight"].std()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("poisoning", [GaussianNoise(), SignFlip()], ids=str)
def test_the_same_seed_sends_the_same_weights(poisoning: GaussianNoise | SignFlip) -> None:
    images = torch.arange(160).to(torch.uint8).view(10, 1, 4, 4)
    split, sent = Split(images, torch.arange(10) % 2), []
    for seed in (3, 3, 4):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        torch.rand(seed)  # the generators of the process do not matter
        attack = Attack(trigger=Patch(size=1), model_poisoning=poisoning)
        train_locally(model, split, LocalTraining(batch_size=4), seed=seed, attack=attack)
        sent.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(sent[0], sent[1])
    assert not torch.equal(sent[0], sent[2])
