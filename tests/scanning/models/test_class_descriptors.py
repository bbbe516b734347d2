"""Descriptors of classes: a model with a shortcut made by hand, and what does not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from fl_shield.scanning.models.class_descriptors import ClassSearch, describe_classes
from fl_shield.scanning.models.neural_cleanse import TriggerSearch

SEARCH = ClassSearch(steps=6, radii=(0.1,), patch=TriggerSearch(steps=30, samples=8))


def described(weight: torch.Tensor, **settings: float) -> dict[str, NDArray[np.float64]]:
    """Return the columns of a linear model of 6x6 images."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, len(weight), bias=False))
    model[1].weight.data = weight * settings.get("louder", 1.0)
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(32, 1, 6, 6, generator=generator)
    logits = model(images)
    names, table = describe_classes(
        model.eval().requires_grad_(False), images, logits.argmax(dim=1).detach(), "1", SEARCH
    )
    assert np.isfinite(table).all()
    return dict(zip(names, table.T, strict=True))


def weights(classes: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(classes, 36, generator=generator)
    return weight - weight.mean(dim=1, keepdim=True)


def test_a_class_that_one_pixel_leads_to_stands_out() -> None:
    weight = weights()
    weight[2, 7] += 40.0
    weight[2] -= 20.0 / 36  # as likely as before on the average image
    found = described(weight)
    for name, sign in (("patch", -1), ("margin@0.1", 1), ("confidence@0.1", 1), ("corner", 1)):
        assert int(np.argmax(sign * found[name])) == 2, name


def test_by_hand() -> None:
    found = described(weights())
    # One linear layer: the gradient of log p_k is W_k − Σ p W, whatever else the image shows, and
    # penultimate activations are the pixels themselves: all images are moved alike but for limits.
    assert (found["direction@0.1"] > 0.9).all()
    assert (found["direction@0.1"] <= 1.0 + 1e-6).all()
    norms = weights().norm(dim=1).log().numpy()
    assert found["row"] == pytest.approx(norms, abs=1e-5)
    assert (found["success@0.1"] <= 1.0).all()
    assert (found["agreement"] <= 1.0 + 1e-6).all()


def test_the_order_of_classes_and_the_scale_of_logits_do_not_matter() -> None:
    weight = weights()
    plain, louder = described(weight), described(weight, louder=3.0)
    assert louder["margin@0.1"] == pytest.approx(plain["margin@0.1"], rel=0.2, abs=0.2)
    turned = described(weight.flip(0))
    for name in ("agreement", "corner", "margin@0.1", "noise", "row"):
        assert turned[name][::-1] == pytest.approx(plain[name], rel=1e-3, abs=1e-3), name
