"""A server without clean samples: noise stands in for them, and the shield says so."""

import logging

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import FedAvg

from fl_shield.cohort import ClientUpdate, Cohort
from fl_shield.data.task import TaskSpec
from fl_shield.errors import ConfigurationError
from fl_shield.inspection import Inspector
from fl_shield.live.noise import NoiseProbes
from fl_shield.models.lstm import BiLstm
from fl_shield.models.state import state_arrays
from fl_shield.strategies import MetaShield
from fl_shield.training.local import train_locally
from tests.live import _digits


def test_noise_is_uniform_over_the_range_and_seeded() -> None:
    first = NoiseProbes((3, 8, 8), 64, low=-1.0, high=2.0).tensors()["inputs"]
    assert first.shape == (64, 3, 8, 8)
    assert float(first.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(first.std()) == pytest.approx(3 / 12**0.5, abs=0.03)
    assert torch.equal(first, NoiseProbes((3, 8, 8), 64, low=-1.0, high=2.0).tensors()["inputs"])


def test_texts_are_random_tokens() -> None:
    probes = NoiseProbes((20,), vocab_size=50)
    assert probes.token_ids is not None
    assert int(probes.token_ids.max()) < 50
    model = BiLstm(TaskSpec("text", (20,), 3, vocab_size=50))
    state = state_arrays(model)
    clients = tuple(ClientUpdate(i, 1.0, lambda: state) for i in range(3))
    assert np.isfinite(Inspector(model, probes).describe(Cohort(1, state, clients)).raw).all()


def test_a_shield_without_clean_samples_judges_and_says_what_it_lacks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, logger="flwr.fl_shield")
    strategy = MetaShield(FedAvg(), _digits.model(), NoiseProbes((1, 8, 8)))
    assert "looks at clients through noise only" in caplog.text
    reference, clients = state_arrays(_digits.model()), []
    for number in range(4):
        model = _digits.model()
        train_locally(model, _digits.client(number), _digits.TRAINING, seed=number)
        state = state_arrays(model)
        clients.append(ClientUpdate(number, 1.0, lambda state=state: state))  # type: ignore[misc]
    verdicts, is_safe_mode = strategy._shield_core._judge(Cohort(1, reference, tuple(clients)))
    assert not is_safe_mode
    assert all(verdict.score is not None for verdict in verdicts)


def test_shadows_need_clean_samples() -> None:
    with pytest.raises(ConfigurationError, match="need labels, but the probes have none"):
        MetaShield(FedAvg(), _digits.model(), NoiseProbes((1, 8, 8)), shadows=True)


def test_wrong_arguments_are_named_together() -> None:
    with pytest.raises(ConfigurationError) as raised:
        NoiseProbes((), low=2.0, vocab_size=-1)
    assert len(str(raised.value).splitlines()) == 3
