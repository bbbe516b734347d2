"""MetaShield for whole models: the round that is played, and digits models that it judges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fl_shield.cohort import Cohort
from fl_shield.data.task import TaskSpec
from fl_shield.errors import ConfigurationError, ModelError
from fl_shield.models.text_cnn import TextCnn
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.scanning.models.meta_shield import MetaShieldModels
from fl_shield.scanning.protocol import Held, ModelScanner
from fl_shield.training.local import LocalTraining
from tests.scanning.models import _victims

QUICK = LocalTraining(optimiser="adam", learning_rate=1e-3, epochs=3, batch_size=16)


def lengths(cohort: Cohort) -> list[float]:
    states = [client.load() for client in cohort.clients]
    return [
        float(np.sqrt(sum(np.square(s[k] - cohort.reference[k]).sum() for k in s)))  # type: ignore[operator]
        for s in states
    ]


def test_the_suspect_is_one_of_several_updates_of_one_length() -> None:
    model = _victims.victim(11, backdoored=True)
    cohort = MetaShieldModels(companions=3, forgetting=QUICK).cohort(model, _victims.held(48))
    assert len(cohort) == 4
    suspect = cohort.clients[0].load()
    for name, tensor in model.state_dict().items():
        assert np.array_equal(suspect[name], tensor.numpy())
    found = lengths(cohort)
    assert found == pytest.approx([found[0]] * 4, rel=1e-4)
    assert found[0] > 0


def test_models_are_left_as_they_were_and_scores_repeat() -> None:
    scanner = MetaShieldModels(companions=3, forgetting=QUICK).fit(_victims.held(64))
    assert isinstance(scanner, ModelScanner)
    model = _victims.victim(10, backdoored=True)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert scanner.score([model])[0] == scanner.score([model])[0]
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_texts_are_judged_as_well() -> None:
    spec = TaskSpec("text", (10,), 3, vocab_size=40)
    labels = torch.arange(48) % 3
    tokens = torch.randint(1, 20, (48, 10), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = 20 + labels
    held = Held(clean=ProbeSet(tokens, labels), spec=spec)
    scanner = MetaShieldModels(companions=2, forgetting=QUICK).fit(held)
    assert np.isfinite(scanner.score([TextCnn(spec, embedding=8, filters=4)])).all()


class Hidden(nn.Module):
    """No layer returns the logits: they are changed afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = 2.0 * self.inner(images)
        return logits


def test_what_it_refuses() -> None:
    with pytest.raises(ConfigurationError, match="2 or more, to compare with, got 1"):
        MetaShieldModels(companions=1)
    with pytest.raises(ConfigurationError, match="needs labelled clean samples"):
        MetaShieldModels().fit(_victims.held(labelled=False))
    with pytest.raises(ConfigurationError, match="at least 16 samples, got 12"):
        MetaShieldModels().fit(_victims.held(12))
    with pytest.raises(ModelError, match="penultimate layer of the model was not found"):
        MetaShieldModels().fit(_victims.held(32)).score([Hidden()])
