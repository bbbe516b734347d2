"""MESAS and the tests that it shares with CrowdGuard, against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics.pairwise import cosine_distances
from torch import nn

from fl_shield.baselines.mesas import METRICS, largest_deviation, metrics, pruned, votes
from fl_shield.baselines.observed import Floats, Observed
from fl_shield.baselines.significance import LEVEL, beyond_the_gap, differs
from fl_shield.cohort import ClientUpdate, Cohort
from fl_shield.models.state import state_arrays
from fl_shield.probes.probe_set import ProbeSet
from tests.baselines._digits import digits_round
from tests.baselines.test_statistics import make_model, make_probes

FEW = arrays(
    np.float64, st.integers(3, 12), elements=st.floats(-5, 5, allow_subnormal=False), unique=True
)


def observe(updates: Floats, *, counter: int = 0) -> Observed:
    """Return a cohort of a layer of weights 3 and 4 without bias, moved by `(clients, 2)`."""
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1, affine=False))
    reference = state_arrays(model)
    reference["0.weight"][:] = [[3.0, 4.0]]
    clients = []
    for number, update in enumerate(updates):
        state = reference | {
            "0.weight": reference["0.weight"] + update.astype(np.float32),
            "1.num_batches_tracked": np.asarray(counter * number),
            "1.running_mean": np.full(1, 100.0 * counter * number, np.float32),
        }
        clients.append(ClientUpdate(number, 10.0, lambda state=state: state))  # type: ignore[misc]
    cohort = Cohort(1, reference, tuple(clients))
    return Observed(cohort, model, ProbeSet(torch.rand(4, 2), None, 2))


def test_metrics_by_hand() -> None:
    updates = np.array([[1.0, -4.0], [0.0, 2.0], [0.0, 0.0]])
    table = metrics(observe(updates))
    models = updates + np.array([3.0, 4.0])
    cosine = cosine_distances(models, [[3.0, 4.0]])[:, 0]
    assert METRICS == ("cosine", "euclid", "count", "variance", "minimum", "maximum")
    np.testing.assert_allclose(
        table,
        [
            [cosine[0], 17**0.5, 1, 6.25, 1, 4],
            [cosine[1], 2, 1, 1, 2, 2],
            [0, 0, 0, 0, 0, 0],
        ],
        atol=1e-6,
    )


def test_batch_statistics_and_counters_are_no_metric() -> None:
    updates = np.random.default_rng(0).standard_normal((5, 2))
    np.testing.assert_array_equal(
        metrics(observe(updates)), metrics(observe(updates, counter=1000))
    )


@given(values=FEW)
def test_the_widest_gap_is_single_linkage(values: Floats) -> None:
    points = np.append(values, np.median(values))
    gaps = np.sort(np.diff(np.sort(points)))
    if len(gaps) > 1 and gaps[-1] <= gaps[-2] * (1 + 1e-6):
        return  # two cuts are as good
    labels = AgglomerativeClustering(2, linkage="single").fit_predict(points[:, None])
    np.testing.assert_array_equal(
        beyond_the_gap(values, float(np.median(values))), labels[:-1] != labels[-1]
    )


def test_each_test_fires_on_what_it_is_for() -> None:
    even = np.arange(12.0)
    assert not differs(even)
    assert differs(np.append(np.zeros(11) + np.arange(11) * 1e-3, 5.0)), "three deviations"
    near, far = np.linspace(-0.1, 0, 14), np.linspace(3.0, 3.2, 6)
    assert differs(np.concatenate([near, far])), "by the mean distance to the median"
    quartiles = np.array([-1.0, -0.5, 0.0, 0.5, 1.0, 9.0])  # a z-score of 2.2 only
    assert not differs(quartiles)
    assert differs(quartiles, whiskers=5.5)
    for nobody in (np.zeros(0), np.ones(2), np.full(9, 0.1)):
        assert not differs(nobody)


def test_honest_rounds_seldom_differ() -> None:
    """Three tests at the level, and a z-score of three: a few in a hundred."""
    rng = np.random.default_rng(0)
    alarms = np.mean([differs(rng.standard_normal(20)) for _ in range(300)])
    assert alarms < 6 * LEVEL


def test_a_metric_prunes_until_the_rest_is_of_one_kind() -> None:
    values = np.concatenate([np.linspace(0, 1, 14), np.linspace(8, 8.2, 6), [30.0]])
    np.testing.assert_array_equal(np.flatnonzero(pruned(values, 10)), np.arange(14, 21))
    np.testing.assert_array_equal(np.flatnonzero(pruned(values, 6)), [20])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 8])
def test_equal_clients_are_never_pruned(count: int) -> None:
    table = metrics(observe(np.ones((count, 2))))
    assert table.shape == (count, 6)
    assert votes(table).tolist() == [0] * count
    assert largest_deviation(table).tolist() == [0.0] * count


def test_matching_one_metric_shows_in_another() -> None:
    """The paper's promise: an update of an ordinary norm is found by how that norm is made up."""
    rng = np.random.default_rng(0)
    model = make_model()
    shape = state_arrays(model)["0.weight"].shape
    honest = rng.standard_normal((14, *shape))
    ordinary = float(np.mean([np.linalg.norm(update) for update in honest]))
    sparse = np.zeros((6, *shape))
    sparse[:, 0, 0] = ordinary * rng.uniform(0.9, 1.1, 6)
    reference = state_arrays(model)
    clients = []
    for number, update in enumerate([*honest, *sparse]):
        state = reference | {"0.weight": (reference["0.weight"] + 0.1 * update).astype(np.float32)}
        clients.append(ClientUpdate(number, 10.0, lambda state=state: state))  # type: ignore[misc]
    observed = Observed(Cohort(1, reference, tuple(clients)), model, make_probes())
    table = metrics(observed)
    most = (len(clients) - 1) // 2
    by = {name: set(np.flatnonzero(pruned(table[:, i], most))) for i, name in enumerate(METRICS)}
    attackers = set(range(14, 20))
    assert not attackers & by["euclid"]
    assert attackers == by["maximum"]


def test_boosted_backdoors_on_digits_are_pruned() -> None:
    counts = votes(metrics(digits_round()))
    assert (counts[9:] >= 3).all()
    assert (counts[:9] > 0).sum() <= 1
