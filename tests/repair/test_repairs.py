"""Repairs: which neurons go, by hand, and backdoors of real digits models that go with them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fl_shield.data.task import Split
from fl_shield.errors import ConfigurationError, ModelError
from fl_shield.metrics.backdoor import accuracy, attack_success_rate
from fl_shield.repair.fine_pruning import find_prunable_layer, fine_prune, mean_activations
from fl_shield.repair.unlearning import unlearn_triggers
from fl_shield.scanning.models.neural_cleanse import TriggerSearch
from fl_shield.training.local import LocalTraining
from tests.scanning.models import _victims

QUICK = LocalTraining(optimiser="adam", learning_rate=3e-3, epochs=8, batch_size=16)
SEARCH = TriggerSearch(steps=100, samples=16)


def clean(samples: int = 100) -> Split:
    return _victims.task().test.take(torch.arange(samples))


def judged() -> Split:
    return _victims.task().test.take(torch.arange(100, len(_victims.task().test)))


class TwoChannels(nn.Module):
    """Channel 0 tells the classes, channel 1 never fires on clean inputs, 2 does without use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 1)
        self.conv.weight.data = torch.tensor([1.0, 1.0, 0.5]).reshape(3, 1, 1, 1)
        assert self.conv.bias is not None
        self.conv.bias.data = torch.tensor([0.0, -2.0, 0.5])
        self.head = nn.Linear(3, 2)
        self.head.weight.data = torch.tensor([[-1.0, 9.0, 0.0], [1.0, -9.0, 0.0]])
        self.head.bias.data = torch.tensor([0.5, -0.5])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.conv(images).relu().mean(dim=(2, 3)))
        return logits


def dark_and_bright() -> Split:
    labels = torch.arange(10) % 2
    return Split(labels.float().reshape(10, 1, 1, 1).expand(-1, 1, 2, 2), labels)


def test_mean_activations_by_hand() -> None:
    model = TwoChannels().eval()
    found = mean_activations(model, model.conv, dark_and_bright().inputs)
    # Means of (0, 1), of (0, 0) behind ReLU, and of (½, 1).
    assert found.tolist() == pytest.approx([0.5, 0.0, 0.75])


def test_the_dormant_channel_goes_and_the_needed_one_stays() -> None:
    pruned = fine_prune(TwoChannels(), dark_and_bright(), fine_tuning=None)
    assert pruned.layer == "conv"
    assert pruned.channels == (1,)  # next would be 0, without which half the samples are wrong
    assert pruned.accuracy_before == pruned.accuracy_pruned == 1.0
    trigger = torch.full((1, 1, 2, 2), 4.0)
    assert int(TwoChannels()(trigger).argmax()) == 0
    assert int(pruned.model(trigger).argmax()) == 1


def test_pruned_channels_stay_so_in_fine_tuning() -> None:
    pruned = fine_prune(_victims.victim(11, backdoored=True), clean(), fine_tuning=QUICK)
    module = pruned.model.get_submodule(pruned.layer)
    assert isinstance(module, nn.Conv2d)
    assert pruned.channels
    assert float(module.weight[list(pruned.channels)].detach().abs().max()) == 0.0


@pytest.mark.parametrize("repair", ["pruning", "unlearning"])
def test_the_backdoor_of_a_digits_model_goes_and_accuracy_stays(repair: str) -> None:
    model = _victims.victim(11, backdoored=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if repair == "pruning":
        long = LocalTraining(optimiser="adam", learning_rate=1e-2, epochs=15, batch_size=16)
        repaired = fine_prune(model, clean(), fine_tuning=long).model
    else:
        found = unlearn_triggers(model, clean(), search=SEARCH, training=QUICK)
        assert _victims.TARGET in found.targets
        repaired = found.model
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    had = attack_success_rate(model, judged(), _victims.ATTACK)
    has = attack_success_rate(repaired, judged(), _victims.ATTACK)
    kept, was = accuracy(repaired, judged()), accuracy(model, judged())
    assert None not in (had, has, kept, was)
    assert had is not None
    assert has is not None
    assert kept is not None
    assert was is not None
    assert had > 0.9
    assert has < had - 0.2
    assert kept > was - 0.1


def test_a_model_without_suspicious_class_is_left_alone() -> None:
    model = _victims.victim(0, backdoored=False)
    found = unlearn_triggers(model, clean(), threshold=100.0, search=SEARCH)
    assert found.targets == ()
    assert all(torch.equal(v, found.model.state_dict()[k]) for k, v in model.state_dict().items())


def test_the_last_hidden_layer_is_pruned_where_there_is_no_convolution() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    assert find_prunable_layer(model, torch.rand(2, 1, 8, 8)) == "1"
    with pytest.raises(ModelError, match="nothing to prune"):
        find_prunable_layer(nn.Linear(4, 2), torch.rand(2, 4))
    with pytest.raises(ModelError, match="Unknown layer to prune 'conv'"):
        fine_prune(model, clean(), layer="conv")


def test_what_they_refuse() -> None:
    model = _victims.victim(0, backdoored=False)
    with pytest.raises(ConfigurationError, match="at least 8 samples for a repair, got 7"):
        fine_prune(model, clean(7))
    same = Split(clean().inputs, torch.zeros(100, dtype=torch.int64))
    with pytest.raises(ConfigurationError, match="of a single class"):
        unlearn_triggers(model, same)
    texts = Split(torch.ones(20, 6, dtype=torch.int64), torch.arange(20) % 2)
    with pytest.raises(ConfigurationError, match="models of images only"):
        unlearn_triggers(model, texts)
    with pytest.raises(ConfigurationError, match="classes below 10, got .12"):
        unlearn_triggers(model, clean(), targets=[12], search=TriggerSearch(steps=1))
