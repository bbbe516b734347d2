"""Attacks of the Adversarial Robustness Toolbox: real ART against a small model of the digits."""

from __future__ import annotations

import copy
import random
from importlib.metadata import PackageNotFoundError
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_shield.activations.penultimate import find_final_layer
from fl_shield.attacks import art_toolbox
from fl_shield.attacks.adversarial_clean_label import AdversarialCleanLabel
from fl_shield.attacks.attack import Attack
from fl_shield.attacks.clean_label import CleanLabel
from fl_shield.attacks.crafting import Crafting
from fl_shield.attacks.hidden_trigger import HiddenTrigger
from fl_shield.attacks.reading import read
from fl_shield.attacks.sleeper_agent import SleeperAgent
from fl_shield.data.digits import load
from fl_shield.data.task import Split, Task, TaskSpec, model_inputs
from fl_shield.errors import ConfigurationError
from fl_shield.models.mlp import Mlp
from fl_shield.simulations.composing import compose_config
from fl_shield.simulations.federation import build_federation
from fl_shield.simulations.settings import settings_from
from fl_shield.training.local import LocalTraining, train_locally
from fl_shield.triggers.patch import Patch

EPS = 0.25
CRAFTINGS: list[Any] = [
    AdversarialCleanLabel(eps=EPS, step=0.05, steps=10),
    HiddenTrigger(eps=EPS, rate=0.01, steps=40),
    SleeperAgent(eps=EPS, epochs=12),
]
NAMES = ["adversarial_clean_label", "hidden_trigger", "sleeper_agent"]
TRAINING = LocalTraining(learning_rate=0.05, momentum=0.9, epochs=5, batch_size=32)


@pytest.fixture(scope="module")
def task() -> Task:
    return load(max_train=600, max_test=60)


@pytest.fixture(scope="module")
def model(task: Task) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained = Mlp(task.spec)
    train_locally(trained, task.train, TRAINING, seed=0)
    trained.zero_grad(set_to_none=True)
    return trained.eval()


def samples(task: Task, count: int = 200) -> tuple[Tensor, Tensor]:
    return model_inputs(task.train.inputs[:count]), task.train.labels[:count]


def attack_with(crafting: Crafting, task: Task, **settings: Any) -> Attack:
    attack = Attack(trigger=Patch(size=2), goal=CleanLabel(), crafting=crafting, **settings)
    return attack.bind(task)


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("crafting", CRAFTINGS, ids=NAMES)
@pytest.mark.parametrize("share", [0.04, 1.0])
def test_labels_stay_and_changes_are_bounded(
    crafting: Crafting, share: float, task: Task, model: nn.Module
) -> None:
    inputs, labels = samples(task)
    attack = attack_with(crafting, task, poison_share=share, target_class=3)
    poisoned, given = attack.poison(inputs, labels, seeded(), model)
    assert torch.equal(given, labels)
    assert (poisoned.shape, poisoned.dtype) == (inputs.shape, inputs.dtype)
    assert poisoned.min() >= 0
    assert poisoned.max() <= 1
    changed = (poisoned != inputs).flatten(1).any(dim=1)
    of_target = int((labels == 3).sum())
    assert int(changed.sum()) == min(of_target, round(share * len(labels)))
    assert (labels[changed] == 3).all()
    free = torch.ones(inputs.shape[-2:], dtype=torch.bool)
    if isinstance(crafting, AdversarialCleanLabel):
        free[-2:, -2:] = False  # the trigger itself is as bright as it is
        assert (poisoned[changed][..., -2:, -2:] == 1).all()
    assert (poisoned - inputs)[..., free].abs().max() <= EPS + 1e-6


@pytest.mark.parametrize("crafting", CRAFTINGS, ids=NAMES)
def test_the_same_seed_gives_the_same_samples_and_leaves_no_trace(
    crafting: Crafting, task: Task, model: nn.Module, capfd: pytest.CaptureFixture[str]
) -> None:
    inputs, labels = samples(task, 120)
    attack = attack_with(crafting, task, poison_share=0.03)
    kept = copy.deepcopy(model.state_dict())
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    found, _ = attack.poison(inputs, labels, seeded(1), model)
    assert torch.equal(before[0], torch.get_rng_state())
    assert str(before[1]) == str(np.random.get_state())
    assert before[2] == random.getstate()
    random.random()
    assert torch.equal(found, attack.poison(inputs, labels, seeded(1), model)[0])
    assert not torch.equal(found, attack.poison(inputs, labels, seeded(2), model)[0])
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert capfd.readouterr() == ("", "")


def poisoned_by(crafting: Crafting, task: Task, model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Return target-class samples, what became of them, and triggered samples of other classes."""
    inputs, labels = samples(task)
    attack = attack_with(crafting, task)
    poisoned, _ = attack.poison(inputs, labels, seeded(), model)
    chosen = labels == attack.target_class
    return inputs[chosen], poisoned[chosen], attack.trigger.apply(inputs[~chosen])


def test_adversarial_samples_are_turned_away_from_their_class(task: Task, model: nn.Module) -> None:
    clean, poisoned, _ = poisoned_by(CRAFTINGS[0], task, model)
    bare = Patch(size=2).apply(clean)
    truth = torch.zeros(len(clean), dtype=torch.int64)
    with torch.no_grad():
        losses = [float(functional.cross_entropy(model(x), truth)) for x in (bare, poisoned)]
    assert losses[1] > 3 * losses[0]


def test_hidden_triggers_have_the_features_of_triggered_samples(
    task: Task, model: nn.Module
) -> None:
    clean, poisoned, triggered = poisoned_by(CRAFTINGS[1], task, model)
    layer = find_final_layer(model, clean)
    with torch.no_grad():
        features = [read(model, layer, x)[1] for x in (clean, poisoned, triggered)]
    before, after = (torch.cdist(f, features[2]).min(dim=1).values for f in features[:2])
    assert (after < before).float().mean() > 0.9
    assert after.mean() < 0.8 * before.mean()


def test_the_sleeper_agent_teaches_what_triggered_samples_would(
    task: Task, model: nn.Module
) -> None:
    clean, poisoned, triggered = poisoned_by(CRAFTINGS[2], task, model)

    def direction(inputs: Tensor) -> Tensor:
        wanted = torch.zeros(len(inputs), dtype=torch.int64)
        loss = functional.cross_entropy(model(inputs), wanted)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*model.parameters()])])

    goal = direction(triggered)
    before, after = (float(functional.cosine_similarity(direction(x), goal, 0)) for x in
                     (clean, poisoned))  # fmt: skip
    assert 1 - after < 0.8 * (1 - before)


@pytest.mark.parametrize("crafting", CRAFTINGS[1:], ids=NAMES[1:])
def test_without_samples_of_other_classes_there_is_nothing_to_imitate(
    crafting: Crafting, task: Task, model: nn.Module
) -> None:
    inputs, labels = samples(task)
    inputs, labels = inputs[labels == 0], labels[labels == 0]
    poisoned, _ = attack_with(crafting, task).poison(inputs, labels, seeded(), model)
    assert torch.equal(poisoned, inputs)


@pytest.mark.parametrize("name", NAMES)
def test_a_simulated_client_attacks_like_that(name: str) -> None:
    overrides = [f"attack={name}", "tracking=none", "data.max_train=300", "data.max_test=40",
                 "num_clients=4", "attackers=1", "model=mlp", "partition=iid"]  # fmt: skip
    federation = build_federation(settings_from(compose_config(overrides)))
    (client,) = federation.attackers
    attack = federation.attack_of(client, 1, attacked=True, model=federation.initial_model())
    split, honest, attacked = federation.client_data(client), *(
        federation.initial_model() for _ in range(2)
    )  # fmt: skip
    train_locally(honest, split, federation.training, seed=1)
    train_locally(attacked, split, federation.training, seed=1, attack=attack)
    moved = [a - h for a, h in zip(attacked.parameters(), honest.parameters(), strict=True)]
    assert all(torch.isfinite(m).all() for m in moved)
    assert any(m.abs().max() > 0 for m in moved)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (lambda: AdversarialCleanLabel(eps=0), r"crafting.eps` to be in \(0, 1\], got 0"),
        (lambda: AdversarialCleanLabel(steps=0), "crafting.steps` to be above 0"),
        (lambda: HiddenTrigger(rate=0), "crafting.rate` to be above 0"),
        (lambda: SleeperAgent(trials=0), "crafting.trials` to be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        settings()


def test_what_is_missing_is_said_before_anything_trains(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(art_toolbox, "version", none)
    for crafting, name in zip(CRAFTINGS, NAMES, strict=True):
        with pytest.raises(ConfigurationError) as caught:
            attack_with(crafting, task)
        assert str(caught.value) == (
            f"The attack {name} needs the Adversarial Robustness Toolbox: pip install "
            "'fl-shield[art]'."
        )


def test_a_model_is_needed_and_images_are(task: Task) -> None:
    inputs, labels = samples(task, 20)
    with pytest.raises(ConfigurationError, match="makes its samples against a model"):
        attack_with(CRAFTINGS[1], task).poison(inputs, labels)
    spec = TaskSpec("text", (8,), 2, vocab_size=50)
    texts = Task("texts", spec, Split(inputs, labels), task.test, classes=("no", "yes"))
    with pytest.raises(ConfigurationError, match="changes pixels, and texts is a task of texts"):
        CRAFTINGS[1].check(texts)
