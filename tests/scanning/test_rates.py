"""FAR, FRR and F2 against scikit-learn and the published table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, fbeta_score

from fl_shield.errors import ConfigurationError
from fl_shield.scanning.rates import Rates, rates


@given(st.integers(1, 30), st.integers(0, 2**16))
def test_as_scikit_learn_on_balanced_samples(half: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.arange(2 * half) < half
    verdict = rng.random(2 * half) < 0.5
    found = rates(verdict, truth)
    assert found.f2 == pytest.approx(fbeta_score(truth, verdict, beta=2, zero_division=0))
    assert found.accuracy == pytest.approx(accuracy_score(truth, verdict))


@pytest.mark.parametrize(
    ("far", "frr", "accuracy", "f2"),
    [(0.0060, 0.2534, 0.8703, 0.9473), (0.3500, 0.5095, 0.5702, 0.6171)],
)
def test_the_published_table(far: float, frr: float, accuracy: float, f2: float) -> None:
    """MBDS, Table III; its F2 is a mean over victims, so that it agrees to a hundredth or so."""
    found = Rates(far, frr)
    assert found.accuracy == pytest.approx(accuracy, abs=1e-3)
    assert found.f2 == pytest.approx(f2, abs=0.015)


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match="both triggered and clean samples"):
        rates([True], [True])
    with pytest.raises(ConfigurationError, match=r"of shape \(2,\)"):
        rates([True], [True, False])
