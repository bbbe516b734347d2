"""Asking about a known trigger, against a case worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.known_trigger import SCALE, obedience
from fl_shield.cohort import ClientUpdate, Cohort

REFERENCE = np.array([[1.0, 0.0], [0.0, 0.0]], dtype=np.float32)
CLEAN = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
TRIGGERED = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
"""The trigger is the second feature."""


def client(number: int, row: int, column: int, size: float) -> ClientUpdate:
    weight = REFERENCE.copy()
    weight[row, column] += size
    return ClientUpdate(number, 10.0, lambda: {"weight": weight})


def cohort(boost: float = 1.0) -> Cohort:
    poisoned = client(0, 1, 1, 2.0 * boost)  # the trigger leads to class 1
    honest = [client(number, 0, 0, 2.0) for number in (1, 2, 3)]
    return Cohort(1, {"weight": REFERENCE}, (poisoned, *honest))


def test_trigger_moves_the_poisoned_client_only_and_by_what_follows_from_its_weight() -> None:
    found = obedience(nn.Linear(2, 2, bias=False), cohort(), CLEAN, TRIGGERED)
    # Centred logits of the reference are ±0.5: their sample spread is √(4 · 0.25 / 3). A quarter of
    # an update of norm 2 raises the logit of class 1 by 0.5, which is 0.25 once centred.
    expected = SCALE * 2.0 / 2.0 / math.sqrt(1.0 / 3.0)
    assert found[0].tolist() == pytest.approx([-expected, expected], rel=1e-5)
    assert torch.equal(found[1:], torch.zeros(3, 2, dtype=torch.float64))


def test_boosting_changes_nothing() -> None:
    model = nn.Linear(2, 2, bias=False)
    plain, boosted = (obedience(model, cohort(boost), CLEAN, TRIGGERED) for boost in (1.0, 50.0))
    assert torch.allclose(plain, boosted)
