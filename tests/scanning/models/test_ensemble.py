"""The ensemble: p-values by hand, SciPy for Fisher's method, and the rate of false alarms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import combine_pvalues

from fl_shield.errors import ConfigurationError
from fl_shield.metrics.detection import auroc
from fl_shield.scanning.ensemble import Combination, Ensemble, conformal_p_values, fisher, harmonic


def test_p_values_by_hand() -> None:
    # 9 is above all three: 1/4; 2 ties with one and is below another: 3/4.
    assert conformal_p_values([9.0, 2.0, 0.0], [1.0, 2.0, 3.0]).tolist() == [0.25, 0.75, 1.0]


def test_fishers_statistic_is_scipys() -> None:
    p_values = np.array([[0.01, 0.3, 0.5], [0.9, 0.2, 0.7]])
    wanted = [combine_pvalues(row, method="fisher").statistic for row in p_values]
    assert fisher(p_values).tolist() == pytest.approx(wanted)


def test_the_harmonic_mean_by_hand() -> None:
    # 2 / (1/0.1 + 1/0.4) = 2 / 12.5 = 0.16.
    assert float(harmonic(np.array([[0.1, 0.4]]))[0]) == pytest.approx(-np.log(0.16))


@given(st.lists(st.floats(-50, 50), min_size=3, max_size=12), st.floats(0.5, 3.0))
def test_units_of_the_scanners_do_not_matter(clean: list[float], factor: float) -> None:
    other = [factor * value for value in clean]
    if len(set(other)) != len(set(clean)):
        return  # rounding made ties
    found = conformal_p_values(clean, clean)
    assert found.tolist() == conformal_p_values(other, other).tolist()


@pytest.mark.parametrize("combination", ["fisher", "harmonic"])
def test_dependent_scanners_keep_the_rate_of_false_alarms(combination: Combination) -> None:
    rng = np.random.default_rng(0)
    alarms = []
    for _ in range(200):
        shared = rng.normal(size=60)
        scores = {name: shared + 0.3 * rng.normal(size=60) for name in "abc"}
        ensemble = Ensemble(combination, 0.1).fit({k: v[:39] for k, v in scores.items()})
        judged = ensemble.score({k: v[39:] for k, v in scores.items()})
        alarms.append(float((judged > ensemble.threshold).mean()))
    assert np.mean(alarms) <= 0.1 + 3 * 0.1 / np.sqrt(200)


def test_two_blind_halves_see_the_whole() -> None:
    rng = np.random.default_rng(1)
    clean = {name: rng.normal(size=100) for name in "ab"}
    judged = {name: rng.normal(size=80) for name in "ab"}
    judged["a"][40:60] += 4.0  # each scanner sees a kind of its own
    judged["b"][60:] += 4.0
    truth = [False] * 40 + [True] * 40
    both = auroc(list(Ensemble().fit(clean).score(judged)), truth)
    alone = [auroc(list(judged[name]), truth) for name in "ab"]
    assert both is not None
    assert all(value is not None and both > value + 0.1 for value in alone)


def test_what_it_refuses() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'fisher'"):
        Ensemble("fischer")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="one scanner or more"):
        Ensemble().fit({})
    with pytest.raises(ConfigurationError, match="at least 19 clean ones"):
        Ensemble().fit({"a": np.zeros(5)})
    with pytest.raises(ConfigurationError, match="a 20, b 19"):
        Ensemble().fit({"a": np.zeros(20), "b": np.zeros(19)})
    fitted = Ensemble().fit({"a": np.arange(20.0)})
    with pytest.raises(ConfigurationError, match="those of a, got .b"):
        fitted.score({"b": [1.0]})
    with pytest.raises(ConfigurationError, match="not fitted yet"):
        Ensemble().score({"a": [1.0]})
