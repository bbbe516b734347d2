"""The conformal threshold against its definition, and against its promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shield.errors import ConfigurationError
from fl_shield.scanning.calibration import conformal_threshold


def test_the_quantile_is_that_of_the_formula() -> None:
    # ⌈20 · 0.9⌉ = 18th smallest of 19.
    assert conformal_threshold(np.arange(1.0, 20.0), 0.1) == 18.0
    # ⌈20 · 0.95⌉ = 19th: the largest is the last that will do.
    assert conformal_threshold(np.arange(1.0, 20.0), 0.05) == 19.0


def test_too_few_samples_are_named_with_what_would_do() -> None:
    with pytest.raises(ConfigurationError, match=r"at least 19 clean samples.*got 16.*0\.0588"):
        conformal_threshold(np.zeros(16), 0.05)


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0])
def test_a_rate_is_between_0_and_1(rate: float) -> None:
    with pytest.raises(ConfigurationError, match="`false_alarms` to be between 0 and 1"):
        conformal_threshold([1.0], rate)


def test_scores_are_numbers() -> None:
    with pytest.raises(ConfigurationError, match="finite"):
        conformal_threshold([1.0, float("nan")], 0.5)


@given(st.integers(20, 60), st.sampled_from([0.05, 0.1, 0.3]))
def test_false_alarms_keep_their_promise(count: int, rate: float) -> None:
    """P(new > threshold) is at most the rate, over calibration sets and new scores alike."""
    rng = np.random.default_rng(count)
    scores = rng.normal(size=(4000, count + 1))
    limits = [conformal_threshold(row[:-1], rate) for row in scores]
    exceeded = float(np.mean(scores[:, -1] > limits))
    assert exceeded <= rate + 4 * np.sqrt(rate * (1 - rate) / len(scores))
