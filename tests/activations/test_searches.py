"""Searches on the global model: universal perturbations, and directions of token embeddings."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fl_shield.activations.directions import PLACE, token_directions
from fl_shield.activations.slopes import MAX_CLASSES as SLOPED_CLASSES
from fl_shield.activations.slopes import input_slopes
from fl_shield.activations.universal import (
    MAX_CLASSES,
    SIZE,
    perturbed,
    universal_perturbations,
)

CLASSES = 4


def image_model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(6 * 36, CLASSES),
    ).eval()  # fmt: skip


def test_a_perturbation_raises_the_class_that_it_is_for_on_all_images() -> None:
    model, images = image_model(), torch.rand(6, 1, 8, 8)
    found = universal_perturbations(model, model.state_dict(), images, CLASSES)
    assert found.shape == (CLASSES, 1, 8, 8)
    moved = perturbed(images, found)
    assert moved.min() >= images.min()
    assert moved.max() <= images.max()
    with torch.no_grad():
        before = model(images).log_softmax(dim=1)
        after = model(moved).log_softmax(dim=1).reshape(CLASSES, 6, CLASSES)
    for target in range(CLASSES):
        assert (after[target, :, target] > before[:, target]).all()
    # Noise of the same size does less.
    noise = torch.randn(found.shape)
    noise *= (found.flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1))[:, None, None, None]
    with torch.no_grad():
        idle = model(perturbed(images, noise)).log_softmax(dim=1).reshape(CLASSES, 6, CLASSES)
    own = torch.arange(CLASSES)
    assert after[own, :, own].mean() > idle[own, :, own].mean() + 0.1


def test_perturbations_are_of_one_size_and_leave_the_model_alone() -> None:
    model, images = image_model(), torch.rand(6, 1, 8, 8) * 2 - 1  # normalised inputs keep theirs
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = universal_perturbations(model, before, images, CLASSES)
    radius = SIZE * float(images.max() - images.min()) * 8
    assert (found.flatten(1).norm(dim=1) <= radius * 1.0001).all()
    assert (found.flatten(1).norm(dim=1) >= radius * 0.5).all()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    again = universal_perturbations(model, before, images, CLASSES)
    np.testing.assert_array_equal(found, again)


def test_many_classes_are_searched_up_to_a_limit() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 50)).eval()
    images = torch.rand(2, 1, 4, 4)
    assert len(universal_perturbations(model, model.state_dict(), images, 50)) == MAX_CLASSES


class Bag(nn.Module):
    """Logits are `head(mean of embeddings)`: the direction of a class is known in closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embedding(input_ids).mean(dim=1))
        return logits


@pytest.mark.parametrize("named", [False, True])
def test_directions_of_a_linear_model_are_its_centred_head(named: bool) -> None:
    torch.manual_seed(2)
    model, ids = Bag().eval(), torch.randint(0, 30, (4, 8))
    found = token_directions(
        model, model.state_dict(), "embedding", {"input_ids": ids} if named else ids
    )
    head = model.head.weight.detach()
    # The logits' mean over four samples, in each of which the token is one of eight.
    expected = (head - head.mean(dim=0)) / 4 / 8
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert not model.embedding._forward_hooks


def test_directions_say_which_way_the_inserted_token_must_move() -> None:
    torch.manual_seed(3)

    class Recurrent(Bag):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(5, 5, batch_first=True)

        def forward(self, input_ids: Tensor) -> Tensor:
            logits: Tensor = self.head(self.lstm(self.embedding(input_ids))[0][:, -1])
            return logits

    model, ids = Recurrent().eval(), torch.randint(0, 29, (4, 6))
    ids[:, PLACE] = 29  # a word that stands nowhere else
    ids[ids.clone().eq(29) & (torch.arange(6) != PLACE)] = 0
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = token_directions(model, state, "embedding", ids)
    with torch.no_grad():
        before = model(ids)
        for target in range(3):
            weight = state["embedding.weight"].clone()
            weight[29] += 0.05 * found[target] / found[target].norm()
            model.embedding.weight.copy_(weight)
            after = model(ids)
            rise = (after - after.mean(dim=1, keepdim=True)) - (
                before - before.mean(dim=1, keepdim=True)
            )
            assert rise.mean(dim=0)[target] > 0


def test_slopes_of_texts_are_by_their_embedded_tokens() -> None:
    model = Bag().eval()
    slopes = input_slopes(model, model.state_dict(), torch.randint(0, 30, (6, 8)), "embedding")
    weight = model.state_dict()["head.weight"]
    expected = (weight - weight.mean(dim=0)).unsqueeze(1).expand(3, 6, 5) / 8
    np.testing.assert_allclose(slopes, expected, atol=1e-6)


def test_of_many_classes_the_first_are_taken() -> None:
    model = Bag()
    model.head = nn.Linear(5, 30)
    tokens = torch.randint(0, 30, (2, 4))
    slopes = input_slopes(model.eval(), model.state_dict(), tokens, "embedding")
    assert slopes.shape == (SLOPED_CLASSES, 2, 5)
