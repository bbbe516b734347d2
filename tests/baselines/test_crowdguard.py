"""CrowdGuard on the server: each step by hand, and its promise on real training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import paired_cosine_distances, paired_euclidean_distances
from sklearn.preprocessing import StandardScaler

from fl_shield.baselines.crowdguard import (
    CrowdGuardReports,
    agreed,
    features,
    first_component,
    folds_of,
    hidden_outputs,
    layer_distances,
    reports,
    suspects,
)
from fl_shield.baselines.observed import Observed
from fl_shield.errors import ConfigurationError
from fl_shield.models.state import state_arrays
from tests.baselines._digits import digits_round
from tests.baselines.test_statistics import cohort_of, make_model, make_probes


def test_samples_are_dealt_out_by_class() -> None:
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    folds = folds_of(labels, 4)
    assert sorted(np.concatenate(folds)) == list(range(8))
    assert [sorted(labels[fold]) for fold in folds] == [[0, 1]] * 4
    assert [len(fold) for fold in folds_of(labels[:2], 5)] == [1, 1]


def test_every_linear_layer_is_read_before_what_follows_it() -> None:
    observed = Observed(cohort_of([{}]), make_model(), make_probes())
    state = state_arrays(make_model())
    inputs = make_probes().inputs
    assert isinstance(inputs, torch.Tensor)
    first, second = hidden_outputs(observed, state, inputs)
    assert first.shape == (12, 4)
    assert second.shape == (12, 3)
    wanted = inputs.numpy() @ state["0.weight"].T + state["0.bias"]
    np.testing.assert_allclose(first.numpy(), wanted, rtol=1e-5)
    assert (first < 0).any(), "not what the ReLU leaves of it"


def test_distances_are_those_of_another_library() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, 6, 5)).astype(np.float32)
    found = layer_distances([torch.tensor(left)], [torch.tensor(right)])
    assert found.shape == (2, 6, 1)
    np.testing.assert_allclose(found[0, :, 0], paired_cosine_distances(left, right), atol=1e-6)
    np.testing.assert_allclose(found[1, :, 0], paired_euclidean_distances(left, right), rtol=1e-5)


def test_features_by_hand() -> None:
    """Three times, half and never as far as the validator's own model, by class and layer."""
    client = np.array([[3.0, 1.0], [9.0, 1.0], [5.0, 2.0]])
    own = np.array([[1.0, 2.0], [3.0, 2.0], [0.0, 2.0]])
    row = features(client, own, np.array([4, 4, 7]))
    # Class 4: 3 and 0.5; class 7: 0, where the validator did not move, and 1.
    np.testing.assert_allclose(row, [4.0, -0.25, -1.0, 0.0])
    np.testing.assert_allclose(features(own[:2], own[:2], np.array([0, 1])), 0.0)


def test_the_component_is_that_of_another_library() -> None:
    rows = np.random.default_rng(0).standard_normal((7, 4)) * [5, 1, 1, 0.1]
    table = np.vstack([rows, np.median(rows, axis=0)])
    wanted = PCA(1).fit_transform(StandardScaler().fit_transform(table))[:, 0]
    places, centre = first_component(rows)
    np.testing.assert_allclose(np.abs(places - centre), np.abs(wanted[:-1] - wanted[-1]))
    turned, _ = first_component(rows[::-1])
    np.testing.assert_allclose(turned[::-1], places, atol=1e-9)


def test_suspects_stand_apart_and_are_a_minority() -> None:
    rng = np.random.default_rng(0)
    rows = 0.1 * rng.standard_normal((12, 6))
    assert not suspects(rows).any()
    rows[3] += 4.0
    rows[8] += 4.2
    assert np.flatnonzero(suspects(rows)).tolist() == [3, 8]
    assert not suspects(np.ones((5, 6))).any()
    rows[:7] += 40.0
    assert suspects(rows).sum() <= 5


def test_the_largest_group_of_equal_reports_counts() -> None:
    alike, other = [False, False, True, True], [True, True, False, False]
    votes = np.array([other, alike, alike, [True, True, False, True], alike])
    np.testing.assert_array_equal(agreed(votes), alike)
    np.testing.assert_array_equal(agreed(np.array([other])), other)
    np.testing.assert_array_equal(agreed(np.array([other, other])), other)


def test_backdoors_on_digits_are_all_found_and_nobody_else() -> None:
    """The paper's promise, TPR and TNR of 100 %, on independent and identical data."""
    observed = digits_round()
    np.testing.assert_array_equal(np.flatnonzero(agreed(reports(observed))), [9, 10, 11])
    assert CrowdGuardReports().score(observed)[:9].max() < 0.5


def test_nobody_is_accused_without_attack() -> None:
    assert not agreed(reports(digits_round(12, 0))).any()


def test_batch_statistics_of_a_client_count_only_by_what_they_do() -> None:
    """A counter does nothing, so it changes nothing; it is in no distance."""
    observed = Observed(cohort_of([{}, {"2.num_batches_tracked": 5}]), make_model(), make_probes())
    assert not reports(observed, 2).any()


def test_labels_are_needed() -> None:
    observed = Observed(cohort_of([{}]), make_model(), make_probes(labels=False))
    with pytest.raises(ConfigurationError, match="CrowdGuard trains on the server's samples"):
        reports(observed)
