"""MetaShield for whole models: the shipped detector on models of images of 8x8."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fl_shield.data.task import TaskSpec
from fl_shield.errors import ConfigurationError, ModelError
from fl_shield.models.digits_cnn import DigitsCnn
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.scanning.models.class_descriptors import ClassSearch
from fl_shield.scanning.models.class_detector import FILES, load_class_detector
from fl_shield.scanning.models.meta_shield import SHIPPED, MetaShieldModels
from fl_shield.scanning.models.neural_cleanse import TriggerSearch
from fl_shield.scanning.protocol import Held, ModelScanner
from tests.scanning.models import _victims

QUICK = ClassSearch(steps=3, patch=TriggerSearch(steps=5, samples=8))


def test_the_card_says_what_it_has_seen() -> None:
    card = load_class_detector(SHIPPED).card
    assert card == json.loads((SHIPPED / FILES.card).read_text(encoding="utf-8"))
    assert {"shadow_models", "unseen_data_sets", "command"} <= set(card)
    assert not {"mnist", "cifar10", "glyphs", "grey_glyphs"} & set(card["shadow_models"])
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 10_000


def test_patched_models_score_above_clean_ones() -> None:
    bad = [_victims.victim(seed, backdoored=True) for seed in (10, 11)]
    clean = [_victims.victim(seed, backdoored=False) for seed in (0, 1)]
    scanner = MetaShieldModels().fit(_victims.held(64))
    assert scanner.score(bad).min() > scanner.score(clean).max()
    unlabelled = MetaShieldModels().fit(_victims.held(64, labelled=False))
    assert unlabelled.score(bad).mean() > unlabelled.score(clean).mean()


def test_the_target_is_the_most_suspicious_class() -> None:
    scanner = MetaShieldModels().fit(_victims.held(64))
    scanner._threshold = -1e6  # all classes, in order
    found = scanner.suspicious_classes(_victims.victim(11, backdoored=True))
    assert found[0] == _victims.TARGET
    assert sorted(found) == list(range(10))
    scanner._threshold = 1e6
    assert scanner.suspicious_classes(_victims.victim(11, backdoored=True)) == ()
    with pytest.raises(ConfigurationError, match="not fitted yet"):
        MetaShieldModels().suspicious_classes(_victims.victim(11, backdoored=True))


def test_models_are_left_as_they_were_and_scores_repeat() -> None:
    scanner = MetaShieldModels(search=QUICK).fit(_victims.held(64))
    assert isinstance(scanner, ModelScanner)
    model = _victims.victim(10, backdoored=True)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert scanner.score([model])[0] == scanner.score([model])[0]
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_two_classes_are_enough() -> None:
    spec = TaskSpec("image", (1, 8, 8), 2)
    labels = torch.arange(32) % 2
    clean = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    scanner = MetaShieldModels(search=QUICK).fit(Held(clean=ProbeSet(clean, labels), spec=spec))
    torch.manual_seed(0)
    found = scanner.score([DigitsCnn(spec, width=4, hidden=8)])
    assert abs(found[0]) < 1e6


class Hidden(nn.Module):
    """No layer returns the logits: they are changed afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = 2.0 * self.inner(images)
        return logits


def test_what_it_refuses() -> None:
    with pytest.raises(ConfigurationError, match="at least 8 samples for the scanner .*, got 6"):
        MetaShieldModels().fit(_victims.held(6))
    tokens = torch.randint(1, 20, (32, 8))
    texts = Held(clean=ProbeSet(tokens, tokens[:, 0] % 2), spec=TaskSpec("text", (8,), 2, 30))
    with pytest.raises(ConfigurationError, match="judges models of images only, got text"):
        MetaShieldModels().fit(texts)
    held = _victims.held(32)
    one = replace(held, clean=ProbeSet(held.clean.inputs, torch.zeros(32, dtype=torch.int64)))
    with pytest.raises(ConfigurationError, match="are of a single one"):
        MetaShieldModels().fit(one)
    with pytest.raises(ModelError, match="penultimate layer of the model was not found"):
        MetaShieldModels().fit(held).score([Hidden()])
    with pytest.raises(ConfigurationError, match="radii"):
        ClassSearch(radii=(0.1, 0.0))
    with pytest.raises(ConfigurationError, match="a folder with classes.json"):
        MetaShieldModels(weights="nowhere")
