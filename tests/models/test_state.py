"""Weights to arrays and back."""

import numpy as np
import pytest
import torch

from fl_shield.data.task import TaskSpec
from fl_shield.errors import ModelError
from fl_shield.models.mlp import Mlp
from fl_shield.models.resnet18 import ResNet18
from fl_shield.models.state import load_arrays, state_arrays

SPEC = TaskSpec("image", (1, 16, 16), 3)


def test_round_trip_gives_the_same_model_buffers_too() -> None:
    one, two = ResNet18(SPEC), ResNet18(SPEC)
    one(torch.rand(4, 1, 16, 16))  # moves the batch statistics
    load_arrays(two, state_arrays(one))
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
        assert a.dtype == b.dtype


def test_arrays_are_copies() -> None:
    model = Mlp(SPEC)
    state = state_arrays(model)
    before = {name: array.copy() for name, array in state.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert all(np.array_equal(state[name], before[name]) for name in state)


def test_misfits_are_named_and_change_nothing() -> None:
    model = Mlp(SPEC)
    before = state_arrays(model)
    missing = {name: array + 1 for name, array in before.items() if name != "head.bias"}
    with pytest.raises(ModelError, match=r"missing head\.bias; unknown none"):
        load_arrays(model, missing)
    with pytest.raises(ModelError, match="unknown extra"):
        load_arrays(model, {**before, "extra": np.zeros(1)})
    misshaped = {name: array + 1 for name, array in before.items()}
    misshaped["head.bias"] = np.zeros(4, dtype=np.float32)
    with pytest.raises(ModelError, match=r"'head\.bias' has shape \(4,\), the model's is \(3,\)"):
        load_arrays(model, misshaped)
    after = state_arrays(model)
    assert all(np.array_equal(after[name], before[name]) for name in before)
