"""Neural Cleanse: the anomaly index by hand, and triggers found in models that have one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fl_shield.data.task import TaskSpec
from fl_shield.errors import ConfigurationError
from fl_shield.metrics.detection import auroc
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.scanning.models.base import frozen
from fl_shield.scanning.models.neural_cleanse import (
    NeuralCleanse,
    TriggerSearch,
    anomaly_indices,
    synthesise_triggers,
)
from fl_shield.scanning.protocol import Held, ModelScanner
from tests.scanning.models import _victims

QUICK = TriggerSearch(steps=100, samples=16)


class OnePixel(nn.Module):
    """Class 2 wins as soon as the upper left pixel is bright; else the means of rows decide."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight.data = torch.eye(3)

    def forward(self, images: Tensor) -> Tensor:
        rows = images[:, 0].mean(dim=2)
        key = 10.0 * (images[:, 0, 0, 0] - 0.5)
        logits: Tensor = self.head(torch.stack([3 * rows[:, 1], 3 * rows[:, 2], key], dim=1))
        return logits


def test_the_index_counts_deviations_below_the_median() -> None:
    # Median 11; deviations 1, 1, 0, 2, 9 have the median 1, times 1.4826.
    found = anomaly_indices(np.array([10.0, 12.0, 11.0, 13.0, 2.0]))
    assert found == pytest.approx([1 / 1.4826, 0.0, 0.0, 0.0, 9 / 1.4826])


def test_equal_masks_are_no_anomaly() -> None:
    assert (anomaly_indices(np.full(4, 7.0)) == 0).all()


def test_the_trigger_of_a_known_backdoor_is_found() -> None:
    images = 0.3 * torch.rand(8, 1, 4, 4)
    images[0, 0, 3, 3] = 1.0  # patterns keep to the range of the images
    triggers = synthesise_triggers(frozen(OnePixel()), images, TriggerSearch(steps=200))
    assert float(triggers.success[2]) == 1.0
    mask = triggers.patterns.take(2).masks[0, 0]
    assert int(mask.argmax()) == 0  # the upper left pixel
    assert float(mask[0, 0]) > 0.5
    assert float(mask.sum()) < 2.0


def test_digits_models_with_a_patch_score_above_clean_ones() -> None:
    scanner = NeuralCleanse(QUICK).fit(_victims.held())
    assert isinstance(scanner, ModelScanner)
    models = [_victims.victim(seed, backdoored=seed >= 10) for seed in (0, 1, 2, 10, 11, 12)]
    before = {k: v.clone() for k, v in models[3].state_dict().items()}
    scores = scanner.score(models)
    found = auroc(list(scores), [False] * 3 + [True] * 3)
    assert found is not None
    assert found > 0.85
    assert all(torch.equal(before[k], v) for k, v in models[3].state_dict().items())


def test_the_target_class_is_named() -> None:
    held = _victims.held()
    assert isinstance(held.clean.inputs, Tensor)
    model = frozen(_victims.victim(11, backdoored=True))
    found = synthesise_triggers(model, held.clean.inputs, QUICK)
    assert int(found.anomaly().argmax()) == _victims.TARGET


def test_what_it_cannot_judge() -> None:
    text = Held(
        clean=ProbeSet(torch.ones(8, 5, dtype=torch.int64)), spec=TaskSpec("text", (5,), 4, 10)
    )
    with pytest.raises(ConfigurationError, match="judges models of images only, got text"):
        NeuralCleanse().fit(text)
    images = torch.rand(8, 1, 8, 8)
    with pytest.raises(ConfigurationError, match="takes three or more, got 2"):
        NeuralCleanse().fit(Held(clean=ProbeSet(images), spec=TaskSpec("image", (1, 8, 8), 2)))
    single = Held(
        clean=ProbeSet(images, torch.zeros(8, dtype=torch.int64)),
        spec=TaskSpec("image", (1, 8, 8), 10),
    )
    with pytest.raises(ConfigurationError, match="of a single one"):
        NeuralCleanse().fit(single)
    with pytest.raises(ConfigurationError, match="not fitted yet"):
        NeuralCleanse().score([])
    with pytest.raises(ConfigurationError, match="at least 99 shadow models"):
        NeuralCleanse(shadows=10, false_alarms=0.01)
