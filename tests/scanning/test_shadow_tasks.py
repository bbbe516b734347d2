"""Shadow tasks: initial weights by their published variance, and what a trigger moved, by hand."""

import math

import torch
from torch import nn

from fl_shield.scanning.shadow_tasks import lively, took_effect


def test_lively_networks_start_from_the_weights_of_he_et_al() -> None:
    convolution, norm, dense = nn.Conv2d(8, 64, 5), nn.BatchNorm2d(64), nn.Linear(500, 80)
    scale = norm.weight.detach().clone()
    lively(nn.Sequential(convolution, norm, nn.Flatten(), dense))
    for weight, inputs in ((convolution.weight, 8 * 5 * 5), (dense.weight, 500)):
        assert math.isclose(float(weight.detach().std()), math.sqrt(2.0 / inputs), rel_tol=0.05)
    assert dense.bias is not None
    assert not dense.bias.any()
    assert torch.equal(norm.weight, scale)


def test_a_trigger_takes_effect_where_it_changes_the_verdict() -> None:
    model = nn.Identity()  # logits are the inputs
    target, other = [0.0, 1.0], [1.0, 0.0]
    before = torch.tensor([other, target, other, target])
    triggered = torch.tensor([target, target, other, other])
    assert took_effect(model, triggered, before, 1).tolist() == [True, False, False, False]
