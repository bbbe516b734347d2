"""Warm models are kept, and what has settled knows its samples better than what is well trained."""

from functools import partial

import pytest
import torch
from torch import nn

from fl_shield.data.digits import load
from fl_shield.metrics.backdoor import accuracy
from fl_shield.models.mlp import Mlp
from fl_shield.shadow.domain import Architecture, Domain
from fl_shield.shadow.recipe import SETTLED as SETTLED_RANGES
from fl_shield.shadow.warm_start import SETTLED, warm_model


@pytest.fixture(scope="module")
def domain() -> Domain:
    mlp = Architecture(partial(Mlp, hidden=32), {"adam": 0.003}, epochs=3)
    return Domain("digits", partial(load, test_share=0.2), {"mlp": mlp})


def distance(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return float(sum((a - b).detach().square().sum() for a, b in pairs))


def test_a_settled_model_goes_on_from_the_trained_one(domain: Domain) -> None:
    train = domain.task.train
    trained, settled = (warm_model(domain, "mlp", 0, stage) for stage in (1.0, SETTLED))
    assert (accuracy(settled, train) or 0.0) > (accuracy(trained, train) or 0.0) + 0.01
    fresh = domain.architectures["mlp"].model(domain.task.spec)
    assert 0 < distance(settled, trained) < distance(settled, fresh)


def test_settled_models_are_made_once_whatever_the_seed(domain: Domain) -> None:
    states = [warm_model(domain, "mlp", seed, SETTLED).state_dict() for seed in (0, 2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_ranges_of_settled_federations_start_there() -> None:
    assert SETTLED_RANGES.stages == (SETTLED,)
