"""Chameleon: the contrastive loss by hand, and which layers move in which stage."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_shield.attacks.attack import Attack
from fl_shield.attacks.chameleon import Chameleon, supervised_contrastive
from fl_shield.attacks.model_poisoning import ModelPoisoning, Parameters
from fl_shield.data.task import Split
from fl_shield.training.local import LocalTraining, train_locally
from fl_shield.triggers.patch import Patch
from tests.attacks._attackers import NOTHING, knowing


def test_contrastive_loss_by_hand() -> None:
    """Directions east, east (class 0), north, west (class 1), at temperature 1."""
    features = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    labels, weights = torch.tensor([0, 0, 1, 1]), torch.tensor([1.0, 1.0, 2.0, 2.0])
    east = math.log(1 + math.exp(-1) + math.exp(-2))  # cosines 1, 0, -1
    north = math.log(3)  # cosines 0, 0, 0
    west = math.log(1 + 2 * math.exp(-1))  # cosines 0, -1, -1
    loss = supervised_contrastive(features, labels, weights, 1.0)
    assert float(loss) == pytest.approx((2 * east + 2 * north + 2 * west) / 6)


def test_two_positives_share_an_anchor() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    loss = supervised_contrastive(features, torch.zeros(3), torch.tensor([1.0, 0.0, 0.0]), 0.5)
    total = math.exp(2) + 1
    assert float(loss) == pytest.approx(-0.5 * (math.log(math.exp(2) / total) - math.log(total)))


def test_a_batch_without_pairs_has_no_loss_but_a_gradient() -> None:
    features = torch.ones(2, 3, requires_grad=True)
    loss = supervised_contrastive(features, torch.tensor([0, 1]), torch.ones(2), 0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert features.grad is not None
    assert not features.grad.any()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


def samples(count: int) -> Split:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(count) % 3)


@pytest.mark.parametrize("frozen", [True, False])
def test_features_first_then_the_final_layer(*, frozen: bool) -> None:
    moved: list[tuple[bool, bool]] = []
    last: dict[str, Tensor] = {}

    class Recorder(Chameleon):
        """Writes down after each step whether features and final layer have moved."""

        def after_step(self, model: nn.Module, reference: Parameters, step: int) -> None:
            before = last or reference
            changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
            moved.append(("1.weight" in changed, "3.weight" in changed))
            last.update({n: p.detach().clone() for n, p in model.named_parameters()})
            super().after_step(model, reference, step)

    plan = Recorder(contrastive_share=0.6, frozen=frozen)
    attack = Attack(trigger=Patch(size=1), model_poisoning=plan)
    training = LocalTraining(batch_size=8, momentum=0.9, epochs=5)
    train_locally(network(), samples(8), training, seed=0, attack=attack)
    first, second = (True, False), (not frozen, True)
    assert moved == [first, first, first, second, second]


def test_drawing_together_is_what_the_first_stage_does() -> None:
    """The loss of the batch falls, and does so by its own gradient alone."""
    model = network().eval()
    attack: ModelPoisoning = Chameleon(contrastive_share=0.5).begin(
        model, knowing(samples=samples(8), num_steps=100)
    )
    inputs, labels = samples(24).inputs / 255.0, samples(24).labels
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for step in range(1, 31):
        optimiser.zero_grad()
        penalty = attack.penalty(model, {}, inputs, labels)
        assert penalty is not None
        task = functional.cross_entropy(model(inputs), labels) * attack.task_weight
        (task + penalty).backward()  # type: ignore[no-untyped-call]
        attack.after_backward(model)
        optimiser.step()
        attack.after_step(model, {}, step)
        losses.append(float(penalty.detach()))
    assert losses[-1] < losses[0] - 0.5


def test_the_second_stage_is_ordinary_training() -> None:
    attack = Chameleon(contrastive_share=0.0).begin(
        network().eval(), knowing(samples=samples(4), num_steps=5)
    )
    assert attack.task_weight == 1.0
    assert attack.penalty(network(), {}, *NOTHING) is None
