"""Model poisoning against hand-computed vectors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fl_shield.attacks.chameleon import Chameleon
from fl_shield.attacks.constrain_and_scale import ConstrainAndScale
from fl_shield.attacks.detector_aware import DetectorAware
from fl_shield.attacks.gaussian_noise import GaussianNoise
from fl_shield.attacks.little_is_enough import LittleIsEnough
from fl_shield.attacks.model_poisoning import ModelPoisoning, NoModelPoisoning, distance
from fl_shield.attacks.model_replacement import ModelReplacement
from fl_shield.attacks.neurotoxin import Neurotoxin
from fl_shield.attacks.project import Project
from fl_shield.attacks.sign_flip import SignFlip
from fl_shield.errors import ConfigurationError
from tests.attacks._attackers import NOTHING, knowing, line

GLOBAL = {"w": torch.tensor([1.0, 2.0]), "b": torch.tensor([0.0])}
TRAINED = {"w": torch.tensor([4.0, 2.0]), "b": torch.tensor([4.0])}  # distance 5
WRAPPERS: list[ModelPoisoning] = [
    NoModelPoisoning(),
    ModelReplacement(boost=3.0),
    Project(radius=1.0),
    ConstrainAndScale(),
    Neurotoxin(),
    Chameleon(),
    LittleIsEnough(),
    DetectorAware(),
    GaussianNoise(),
    SignFlip(),
]


def test_identity_sends_what_was_trained() -> None:
    assert NoModelPoisoning().craft(GLOBAL, TRAINED) == TRAINED
    assert NoModelPoisoning().penalty(line(1.0), GLOBAL, *NOTHING) is None


def test_replacement_boosts_the_update() -> None:
    crafted = ModelReplacement(boost=2.0).craft(GLOBAL, TRAINED)
    assert crafted["w"].tolist() == [7.0, 2.0]
    assert crafted["b"].tolist() == [8.0]


def test_projection_keeps_direction_and_meets_the_ball() -> None:
    crafted = Project(radius=1.0).craft(GLOBAL, TRAINED)
    assert crafted["w"].tolist() == pytest.approx([1.6, 2.0])
    assert crafted["b"].tolist() == pytest.approx([0.8])
    inside = Project(radius=5.1).craft(GLOBAL, TRAINED)
    assert torch.equal(inside["w"], TRAINED["w"])


def test_projection_of_every_second_step() -> None:
    model = line(4.0, 5.0)
    reference = {"weight": torch.tensor([[1.0, 1.0]])}  # distance 5
    Project(radius=2.5, every=2).after_step(model, reference, 1)
    assert model.weight.tolist() == [[4.0, 5.0]]
    Project(radius=2.5, every=2).after_step(model, reference, 2)
    assert model.weight.tolist() == [[2.5, 3.0]]


def test_l2_penalty_and_its_gradient() -> None:
    model = line(4.0, 5.0)
    attack = ConstrainAndScale(alpha=0.6)
    penalty = attack.penalty(model, {"weight": torch.tensor([[1.0, 1.0]])}, *NOTHING)
    assert float(penalty.detach()) == pytest.approx(0.4 * 5)
    penalty.backward()  # type: ignore[no-untyped-call]
    assert model.weight.grad is not None
    assert model.weight.grad[0].tolist() == pytest.approx([0.4 * 3 / 5, 0.4 * 4 / 5])
    assert attack.task_weight == 0.6


def test_l2_penalty_has_a_finite_gradient_at_the_global_model() -> None:
    model = line(1.0, 1.0)
    penalty = ConstrainAndScale().penalty(model, {"weight": torch.tensor([[1.0, 1.0]])}, *NOTHING)
    penalty.backward()  # type: ignore[no-untyped-call]
    assert model.weight.grad is not None
    assert model.weight.grad.tolist() == [[0.0, 0.0]]


def test_cosine_penalty_and_its_gradient() -> None:
    model = line(1.0, 0.0)
    attack = ConstrainAndScale(alpha=0.5, anomaly="cosine")
    penalty = attack.penalty(model, {"weight": torch.tensor([[1.0, 1.0]])}, *NOTHING)
    assert float(penalty.detach()) == pytest.approx(0.5 * (1 - math.sqrt(0.5)))
    penalty.backward()  # type: ignore[no-untyped-call]
    assert model.weight.grad is not None
    # d cos / dw at (1, 0) against (1, 1)/√2 is (0, 1/√2)
    assert model.weight.grad[0].tolist() == pytest.approx([0.0, -0.5 * math.sqrt(0.5)], abs=1e-6)


def test_neurotoxin_spares_the_largest_clean_gradients() -> None:
    model = nn.Sequential(line(1.0, 1.0), line(1.0))

    def clean_loss() -> Tensor:
        # gradients: first layer (3, -10), second layer (-7)
        output: Tensor = model(torch.tensor([[3.0, -10.0]]))
        return output.sum()

    attack = Neurotoxin(spared_share=0.34).begin(model, knowing(clean_loss=clean_loss))
    assert attack.mask["0.weight"].tolist() == [[True, False]]
    assert attack.mask["1.weight"].tolist() == [[True]]
    for parameter in model.parameters():
        assert parameter.grad is None
        parameter.grad = torch.ones_like(parameter)
    attack.after_backward(model)
    gradients = [p.grad.tolist() for p in model.parameters() if p.grad is not None]
    assert gradients == [[[1.0, 0.0]], [[1.0]]]


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=str)
def test_batch_statistics_and_counters_are_never_crafted(wrapper: ModelPoisoning) -> None:
    """A whole state_dict may be crafted: only weights move."""
    torch.manual_seed(0)
    before = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    after = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    after(torch.randn(5, 3))
    trained = after.state_dict()
    crafted = wrapper.craft(before.state_dict(), trained)
    assert list(crafted) == list(trained)
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(crafted[name], trained[name])
    assert all(crafted[name].dtype == tensor.dtype for name, tensor in trained.items())


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=str)
def test_wrappers_keep_the_protocol_and_their_inputs(wrapper: ModelPoisoning) -> None:
    assert isinstance(wrapper, ModelPoisoning)
    trained = {name: tensor.clone() for name, tensor in TRAINED.items()}
    wrapper.craft(GLOBAL, trained)
    assert all(torch.equal(trained[name], TRAINED[name]) for name in TRAINED)
    assert eval(repr(wrapper)) == wrapper


def test_distance_of_all_entries_together() -> None:
    assert float(distance(GLOBAL, TRAINED)) == 5


@pytest.mark.parametrize(
    ("wrapper", "settings", "message"),
    [
        (ModelReplacement, {"boost": 0}, r"model_poisoning\.boost.*above 0, got 0"),
        (Project, {"radius": 0}, r"model_poisoning\.radius.*got 0"),
        (Project, {"every": 0}, r"model_poisoning\.every.*got 0"),
        (ConstrainAndScale, {"alpha": 0}, r"model_poisoning\.alpha.*got 0"),
        (ConstrainAndScale, {"anomaly": "l1"}, r"Unknown model_poisoning\.anomaly 'l1'"),
        (ConstrainAndScale, {"boost": -1}, r"model_poisoning\.boost"),
        (Neurotoxin, {"spared_share": 1.0}, r"in \[0, 1\), got 1\.0"),
        (Chameleon, {"contrastive_share": 1.0}, r"in \[0, 1\), got 1\.0"),
        (Chameleon, {"temperature": 0}, r"model_poisoning\.temperature.*got 0"),
        (Chameleon, {"target_weight": 0}, r"model_poisoning\.target_weight.*got 0"),
        (LittleIsEnough, {"z": -1}, r"model_poisoning\.z.*got -1"),
        (LittleIsEnough, {"boost": 0}, r"model_poisoning\.boost.*got 0"),
        (LittleIsEnough, {"num_shadows": 1}, r"2 or more, got 1\. One training has no spread"),
        (DetectorAware, {"weight": -1}, r"model_poisoning\.weight.*got -1"),
        (DetectorAware, {"scales": [1.0, 0.0]}, r"numbers above 0, got \[1\.0, 0\.0\]"),
        (DetectorAware, {"num_inputs": 0}, r"model_poisoning\.num_inputs.*got 0"),
        (DetectorAware, {"max_norm": 0}, r"model_poisoning\.max_norm.*got 0"),
        (DetectorAware, {"min_cosine": 1}, r"in \[-1, 1\), got 1"),
        (GaussianNoise, {"deviation": 0}, r"model_poisoning\.deviation.*got 0"),
        (SignFlip, {"boost": 0}, r"model_poisoning\.boost.*got 0"),
    ],
)
def test_impossible_settings_are_refused(
    wrapper: type, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        wrapper(**settings)
