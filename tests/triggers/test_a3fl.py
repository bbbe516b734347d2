"""The optimised patch against the paper's objective, worked out for a linear model in numpy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_shield.attacks.attack import Attack
from fl_shield.attacks.clean_label import CleanLabel
from fl_shield.attacks.one_to_one import OneToOne
from fl_shield.data.task import Split, Task, TaskSpec
from fl_shield.errors import ConfigurationError
from fl_shield.triggers.a3fl import A3fl
from fl_shield.triggers.patch import Patch
from fl_shield.triggers.pixel_box import PixelBox
from fl_shield.triggers.protocol import OptimisedTrigger, Trigger

SIDE, CLASSES, SAMPLES = 4, 3, 12
Array = NDArray[np.float64]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def linear_model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, CLASSES, bias=False)).double()


def samples() -> tuple[Tensor, Tensor]:
    images = torch.rand(SAMPLES, 1, SIDE, SIDE, generator=generator(), dtype=torch.float64)
    return images, torch.arange(SAMPLES) % CLASSES


def task() -> Task:
    split = Split(torch.zeros(2, 1, SIDE, SIDE, dtype=torch.uint8), torch.tensor([0, 1]))
    return Task("tiny", TaskSpec("image", (1, SIDE, SIDE), CLASSES), split, split, ("a", "b", "c"))


def surplus(weights: Array, inputs: Array, classes: Array) -> Array:
    """Return softmax minus one-hot, `(samples, classes)`: the gradient of CE by the logits."""
    logits = inputs @ weights.T
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    one_hot = np.eye(CLASSES)[classes.astype(int)]
    difference: Array = shares / shares.sum(axis=1, keepdims=True) - one_hot
    return difference


@pytest.mark.parametrize(("balance", "adapt_rate"), [(0.0, 1.0), (0.5, 1.0), (50.0, 8.0)])
def test_a_step_goes_down_the_paper_s_objective(balance: float, adapt_rate: float) -> None:
    """One full-batch step: G' is W - rate · dCE(true)/dW, λ is balance · cos(G, G')."""
    model, (images, labels) = linear_model(), samples()
    wanted = torch.zeros_like(labels)
    trigger = A3fl(
        size=2, position=(1, 1), steps=1, rate=0.1, batch_size=SAMPLES,
        balance=balance, adapt_steps=1, adapt_rate=adapt_rate,
    )  # fmt: skip
    fitted = trigger.optimise(model, images, labels, wanted, generator())

    weights = next(model.parameters()).detach().numpy()
    shown = trigger.apply(images).flatten(1).numpy()
    step = surplus(weights, shown, labels.numpy()).T @ shown / SAMPLES
    adapted = weights - adapt_rate * step
    cosine = (weights * adapted).sum() / np.linalg.norm(weights) / np.linalg.norm(adapted)
    gradient = sum(
        share * (surplus(w, shown, wanted.numpy()) @ w).sum(axis=0)
        for share, w in ((1.0, weights), (balance * cosine, adapted))
    )
    moved = 0.5 - 0.1 * np.sign(np.asarray(gradient).reshape(SIDE, SIDE)[1:3, 1:3])
    assert np.allclose(fitted.values[0], moved)
    assert (fitted.top, fitted.left) == (1, 1)


def test_the_adapted_model_changes_where_the_patch_goes() -> None:
    model, (images, labels) = linear_model(), samples()
    wanted = torch.zeros_like(labels)
    patches = {
        A3fl(size=2, balance=balance, adapt_rate=8.0)
        .optimise(model, images, labels, wanted, generator())
        .values
        for balance in (0.0, 50.0)
    }
    assert len(patches) == 2


def test_the_patch_works_and_the_model_is_left_alone() -> None:
    model, (images, labels) = linear_model().train(), samples()
    before = copy.deepcopy(model.state_dict())
    wanted = torch.full_like(labels, 2)
    trigger = A3fl(size=3, position=(0, 1), batch_size=5)
    fitted = trigger.optimise(model, images, labels, wanted, generator())
    assert model.training
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad
        assert parameter.grad is None

    def loss(shown: Trigger) -> float:
        with torch.no_grad():
            return float(nn.functional.cross_entropy(model(shown.apply(images)), wanted))

    assert loss(fitted) < loss(trigger) - 0.1
    # Linear in the pixels: nothing beats the corner of the box that the weights point to.
    pull = (next(model.parameters())[2] - next(model.parameters())[:2].mean(dim=0)).detach()
    best = (pull.view(SIDE, SIDE)[:3, 1:4] > 0).double()
    corner = PixelBox(values=(tuple(tuple(row) for row in best.tolist()),), left=1)
    assert loss(fitted) < loss(corner) + 0.02


def test_the_same_seed_gives_the_same_patch_and_no_samples_the_start() -> None:
    model, (images, labels) = linear_model(), samples()
    wanted = torch.zeros_like(labels)
    trigger = A3fl(size=2, batch_size=3, steps=7)
    one, same = (trigger.optimise(model, images, labels, wanted, generator()) for _ in range(2))
    assert one == same
    assert one.bind(task()) == one
    none = trigger.optimise(model, images[:0], labels[:0], wanted[:0], generator())
    untouched = A3fl(size=2, steps=0).optimise(model, images, labels, wanted, generator())
    assert none == untouched
    assert torch.equal(none.apply(images), trigger.apply(images))


def test_an_attack_is_fitted_on_those_it_has_to_work_on() -> None:
    model, (images, labels) = linear_model(), samples()
    trigger = A3fl(size=2)
    assert isinstance(trigger, OptimisedTrigger)
    for goal, chosen in ((OneToOne(source=1), labels == 1), (CleanLabel(), labels != 2)):
        attack = Attack(trigger=trigger, target_class=2, goal=goal).bind(task())
        assert attack.is_fitted_to_models
        fitted = attack.fit(model, images, labels, generator())
        wanted = torch.full_like(labels[chosen], 2)
        assert fitted.trigger == trigger.optimise(
            model, images[chosen], labels[chosen], wanted, generator()
        )
        assert not fitted.is_fitted_to_models
        assert str(fitted) == str(attack)
    plain = Attack(trigger=Patch())
    assert plain.fit(model, images, labels, generator()) is plain


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, r"`trigger\.size` to be a number of pixels"),
        ({"position": (-1, 0)}, r"`trigger\.position`.*both 0 or more"),
        ({"start": 2}, r"`trigger\.start` to be within \[0, 1\], got 2"),
        ({"steps": -1, "batch_size": 0}, r"`trigger\.steps`.*-1.\n.*`trigger\.batch_size`.*got 0"),
        ({"adapt_every": 0}, r"`trigger\.adapt_every` to be 1 or more, got 0"),
        ({"balance": -0.1}, r"`trigger\.balance` to be 0 or more, got -0\.1"),
        ({"rate": 0}, r"`trigger\.rate` to be above 0, got 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        A3fl(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (((),), r"rows of equal length"),
        ((((0.1, 0.2), (0.3,)),), r"rows of equal length"),
        ((((1.5,),),), r"within \[0, 1\]"),
    ],
)
def test_values_that_are_no_box_are_refused(values: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        PixelBox(values=values)  # type: ignore[arg-type]


def test_a_box_sets_its_pixels_in_every_channel() -> None:
    box = PixelBox(values=(((0.1, 0.2),), ((0.3, 0.4),)), top=1, left=2)
    shown = box.apply(torch.zeros(2, 2, 3, 4))
    assert shown[1, 0].tolist()[1] == pytest.approx([0, 0, 0.1, 0.2])
    assert shown[1, 1].tolist()[1] == pytest.approx([0, 0, 0.3, 0.4])
    assert int((shown != 0).sum()) == 2 * 4
