"""Local training against a loop written out by hand, and what it promises."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_shield.attacks.attack import Attack
from fl_shield.attacks.constrain_and_scale import ConstrainAndScale
from fl_shield.attacks.model_poisoning import (
    Knowledge,
    ModelPoisoning,
    NoModelPoisoning,
    Parameters,
)
from fl_shield.attacks.model_replacement import ModelReplacement
from fl_shield.attacks.neurotoxin import Neurotoxin
from fl_shield.attacks.project import Project
from fl_shield.data.task import Split, model_inputs
from fl_shield.errors import ConfigurationError, DataError
from fl_shield.training.local import LocalTraining, train_locally
from fl_shield.triggers.patch import Patch


def network(batch_norm: bool = False, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(6)] if batch_norm else []
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 6), *middle, nn.ReLU(), nn.Dropout(dropout), nn.Linear(6, 3)
    )


def samples(count: int) -> Split:
    source = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 1, 4, 4), generator=source, dtype=torch.uint8)
    return Split(images, torch.randint(0, 3, (count,), generator=source))


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_equals_gradient_descent_by_hand(mu: float) -> None:
    """Full batches: w ← w - lr · (∇L + mu · (w - w_global))."""
    split, model = samples(12), network()
    twin = copy.deepcopy(model)
    origin = [parameter.detach().clone() for parameter in twin.parameters()]
    losses = []
    for _ in range(3):
        loss = functional.cross_entropy(twin(model_inputs(split.inputs)), split.labels)
        losses.append(float(loss.detach()))
        gradients = torch.autograd.grad(loss, list(twin.parameters()))
        with torch.no_grad():
            for parameter, gradient, start in zip(
                twin.parameters(), gradients, origin, strict=True
            ):
                parameter.sub_(0.1 * (gradient + mu * (parameter - start)))
    training = LocalTraining(learning_rate=0.1, epochs=3, batch_size=12, proximal_mu=mu)
    found = train_locally(model, split, training, seed=0)
    assert torch.allclose(weights(model), weights(twin), atol=1e-6)
    assert found == pytest.approx(sum(losses) / 3, abs=1e-6)


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_every_optimiser_learns(optimiser: str) -> None:
    split, model = samples(30), network()
    training = LocalTraining(optimiser=optimiser, learning_rate=0.02, epochs=1, batch_size=10)  # type: ignore[arg-type]
    first = train_locally(model, split, training, seed=0)
    for seed in range(30):
        last = train_locally(model, split, training, seed=seed)
    assert last < first


def test_the_seed_decides_everything_and_touches_nothing_else() -> None:
    split, training = samples(25), LocalTraining(epochs=2, batch_size=8, momentum=0.9)
    found: list[Tensor] = []
    for seed in (7, 7, 8):
        model = network(dropout=0.5)
        torch.manual_seed(len(found))  # the state of the process does not matter
        before = torch.random.get_rng_state()
        train_locally(model, split, training, seed=seed)
        assert torch.equal(torch.random.get_rng_state(), before)
        found.append(weights(model))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("count", [1, 2, 9, 17])
def test_batches_of_one_do_not_break_batch_norm(count: int) -> None:
    model = network(batch_norm=True)
    train_locally(model, samples(count), LocalTraining(batch_size=8, epochs=2), seed=0)
    assert bool(torch.isfinite(weights(model)).all())
    assert all(module.training for module in model.modules())


def test_gradients_are_clipped() -> None:
    model, split = network(), samples(10)
    before = weights(model)
    training = LocalTraining(learning_rate=1.0, batch_size=10, max_grad_norm=0.01)
    train_locally(model, split, training, seed=0)
    assert float((weights(model) - before).norm()) == pytest.approx(0.01, rel=1e-3)


def test_frozen_parameters_stay() -> None:
    model = network()
    frozen = model[1]
    assert isinstance(frozen, nn.Linear)
    frozen.requires_grad_(False)
    before = frozen.weight.clone()
    train_locally(model, samples(10), LocalTraining(), seed=0)
    assert torch.equal(frozen.weight, before)


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match=r"at least 1, got 0.*every client"):
        train_locally(network(), samples(0), LocalTraining(), seed=0)


def attack(model_poisoning: ModelPoisoning) -> Attack:
    return Attack(trigger=Patch(size=1), poison_share=0.5, model_poisoning=model_poisoning)


def test_data_poisoning_is_benign_training_on_poisoned_samples() -> None:
    """The same loop, on a split that the attack poisoned once."""
    split, attacker, benign = samples(20), network(), network()
    plan = attack(NoModelPoisoning())
    training = LocalTraining(batch_size=20)  # one step: the order does not matter
    train_locally(attacker, split, training, seed=3, attack=plan)
    poisoned = plan.poison(
        model_inputs(split.inputs), split.labels, torch.Generator().manual_seed(3)
    )
    train_locally(benign, Split(*poisoned), training, seed=9)
    assert torch.allclose(weights(attacker), weights(benign), atol=1e-6)
    honest = network()
    train_locally(honest, split, training, seed=3)
    assert not torch.allclose(weights(attacker), weights(honest))


def test_model_replacement_boosts_what_data_poisoning_trains() -> None:
    split, training, start = samples(20), LocalTraining(epochs=2), weights(network())
    plain, boosted = network(), network()
    train_locally(plain, split, training, seed=3, attack=attack(NoModelPoisoning()))
    train_locally(boosted, split, training, seed=3, attack=attack(ModelReplacement(boost=4.0)))
    assert torch.allclose(weights(boosted) - start, 4 * (weights(plain) - start), atol=1e-5)


def test_projection_keeps_the_update_inside_the_ball() -> None:
    model, start = network(), weights(network())
    training = LocalTraining(learning_rate=0.5, epochs=5)
    train_locally(model, samples(20), training, seed=3, attack=attack(Project(radius=0.05)))
    assert float((weights(model) - start).norm()) <= 0.05 * (1 + 1e-4)


def test_constraining_keeps_the_update_small() -> None:
    start, lengths = weights(network()), []
    for alpha in (1.0, 0.5):
        model, plan = network(), attack(ConstrainAndScale(boost=1.0, alpha=alpha))
        train_locally(model, samples(20), LocalTraining(epochs=20), seed=3, attack=plan)
        lengths.append(float((weights(model) - start).norm()))
    assert lengths[1] < lengths[0] / 2


def test_neurotoxin_leaves_the_spared_coordinates_alone() -> None:
    split, model, start = samples(20), network(), weights(network())
    clean = network().eval()
    loss = functional.cross_entropy(clean(model_inputs(split.inputs)), split.labels)
    gradient = torch.cat(
        [g.abs().flatten() for g in torch.autograd.grad(loss, list(clean.parameters()))]
    )
    plan = attack(Neurotoxin(spared_share=0.3))
    train_locally(model, split, LocalTraining(momentum=0.9, epochs=3), seed=3, attack=plan)
    spared = gradient.topk(round(0.3 * len(gradient))).indices
    moved = weights(model) != start
    assert not moved[spared].any()
    assert moved.any()


def test_crafting_leaves_batch_statistics_as_trained() -> None:
    split, training = samples(20), LocalTraining(batch_size=8)
    plain, boosted = network(batch_norm=True), network(batch_norm=True)
    train_locally(plain, split, training, seed=3, attack=attack(NoModelPoisoning()))
    train_locally(boosted, split, training, seed=3, attack=attack(ModelReplacement(boost=50)))
    for name, buffer in plain.named_buffers():
        assert torch.equal(buffer, boosted.get_buffer(name))


@dataclass(frozen=True)
class Curious(NoModelPoisoning):
    """Remembers what it is told, and changes nothing."""

    told: list[Knowledge] = field(default_factory=list)
    batches: list[Tensor] = field(default_factory=list)

    def begin(self, model: nn.Module, knowledge: Knowledge) -> ModelPoisoning:
        self.told.append(knowledge)
        # Bound to this model: what it would train honestly is asked for before it moves.
        self.told[0] = replace(
            knowledge,
            train_benign={n: knowledge.train_benign(n) for n in range(4)}.__getitem__,
        )
        return self

    def penalty(
        self, model: nn.Module, reference: Parameters, inputs: Tensor, labels: Tensor
    ) -> None:
        self.batches.append(labels)


@pytest.mark.parametrize(("count", "batch_size"), [(20, 8), (9, 8), (3, 1), (1, 4), (5, 5)])
def test_an_attacker_knows_its_data_its_accomplices_and_nothing_else(
    count: int, batch_size: int
) -> None:
    split, other = samples(count), samples(7)
    training = LocalTraining(batch_size=batch_size, epochs=2)
    spy, plain, spied = Curious(), network(), network()
    train_locally(plain, split, training, seed=3, attack=attack(NoModelPoisoning()))
    train_locally(spied, split, training, seed=3, attack=attack(spy), colluders=[other])
    assert torch.equal(weights(plain), weights(spied))
    (told,) = spy.told
    assert told.samples is split
    assert told.num_steps == len(spy.batches)
    honest, ally = network(), network()
    train_locally(honest, split, training, seed=4)
    train_locally(ally, other, training, seed=5)
    for number, model in enumerate((honest, ally)):
        assert all(
            torch.equal(told.train_benign(number)[n], p) for n, p in model.named_parameters()
        )
    again = torch.cat([p.flatten() for p in told.train_benign(3).values()])
    assert not torch.equal(again, weights(ally)), "a bootstrap sample, not the same training"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimiser": "adma"}, r"Did you mean 'adam'"),
        ({"learning_rate": 0}, r"training\.learning_rate.*above 0, got 0"),
        ({"learning_rate": float("nan")}, r"got nan"),
        ({"momentum": 1.0}, r"in \[0, 1\), got 1\.0"),
        ({"weight_decay": -0.1}, r"training\.weight_decay"),
        ({"proximal_mu": -1}, r"training\.proximal_mu"),
        ({"epochs": 0}, r"training\.epochs.*got 0"),
        ({"batch_size": 0}, r"training\.batch_size.*got 0"),
        ({"max_grad_norm": 0}, r"above 0, or null, got 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        LocalTraining(**settings)  # type: ignore[arg-type]
