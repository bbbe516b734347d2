"""The learned detector: calibration by hand, equivariance, completeness of contributions."""

import numpy as np
import pytest
import torch

from fl_shield.descriptors.standardise import standardise
from fl_shield.descriptors.table import DescriptorTable
from fl_shield.detector import Detector, MetaDetector
from fl_shield.detector.features import FeatureSpec, features_of
from fl_shield.detector.meta_detector import Calibration
from fl_shield.detector.set_network import SetNetwork
from fl_shield.errors import ConfigurationError

NAMES = ("a", "b", "c", "d")
SPEC = FeatureSpec(NAMES, (1.0, 0.5, 2.0, 1.0))


def networks(count: int = 2, spec: FeatureSpec = SPEC) -> list[SetNetwork]:
    torch.manual_seed(7)
    return [SetNetwork(spec.num_features, hidden=16) for _ in range(count)]


def table(raw: np.ndarray, names: tuple[str, ...] = NAMES) -> DescriptorTable:
    return DescriptorTable(names, raw, standardise(raw))


def cohort(clients: int, seed: int = 0) -> DescriptorTable:
    return table(np.random.default_rng(seed).standard_normal((clients, len(NAMES))))


def test_the_score_is_the_calibrated_mean_of_the_log_odds() -> None:
    nets = networks(3)
    detector = MetaDetector(nets, SPEC, Calibration(offset=0.25, scale=0.5, threshold=1.5))
    round_table = cohort(6)
    features = torch.from_numpy(features_of(SPEC, NAMES, round_table.raw))[None]
    with torch.no_grad():
        odds = sum(net.eval()(features)[0].double().numpy() for net in nets) / 3
    np.testing.assert_allclose(detector.score(round_table), (odds - 0.25) / 0.5, rtol=1e-4)
    assert detector.threshold == 1.5
    assert isinstance(detector, Detector)


@pytest.mark.parametrize("clients", [0, 1, 2, 3, 20, 1000])
def test_any_number_of_clients(clients: int) -> None:
    detector = MetaDetector(networks(), SPEC)
    found = cohort(clients)
    scores, parts = detector.score(found), detector.contributions(found)
    assert scores.shape == (clients,)
    assert parts.shape == (clients, len(NAMES))
    assert np.isfinite(scores).all()
    assert np.isfinite(parts).all()


def test_a_lone_client_is_compared_with_nobody() -> None:
    detector = MetaDetector(networks(), SPEC)
    scores = [detector.score(cohort(1, seed))[0] for seed in range(3)]
    assert scores == pytest.approx([scores[0]] * 3)
    assert not detector.contributions(cohort(1)).any()


def test_scores_and_contributions_follow_their_clients() -> None:
    detector, raw = MetaDetector(networks(), SPEC), cohort(9).raw
    order = np.random.default_rng(2).permutation(9)
    np.testing.assert_allclose(
        detector.score(table(raw[order])), detector.score(table(raw))[order], atol=1e-5
    )
    np.testing.assert_allclose(
        detector.contributions(table(raw[order])),
        detector.contributions(table(raw))[order],
        atol=1e-5,
    )


def test_contributions_add_up_to_the_distance_from_the_median_client() -> None:
    raw = cohort(21, seed=4).raw
    raw[20] = np.median(raw[:20], axis=0)
    detector = MetaDetector(networks(), SPEC, Calibration(scale=0.02))
    scores = detector.score(table(raw))
    distance = scores - scores[20]
    parts = detector.contributions(table(raw)).sum(axis=1)
    assert np.abs(distance).max() > 3.0
    np.testing.assert_allclose(parts, distance, atol=0.02 * np.abs(distance).max())


def test_subsets_and_strangers_among_the_columns() -> None:
    detector, raw = MetaDetector(networks(), SPEC), cohort(8).raw
    part = detector.score(table(raw[:, :2], ("a", "b")))
    strange = table(np.column_stack([raw[:, 1], np.arange(8.0), raw[:, 0]]), ("b", "new", "a"))
    np.testing.assert_allclose(detector.score(strange), part, atol=1e-6)
    parts = detector.contributions(strange)
    assert not parts[:, 1].any()
    assert parts[:, [0, 2]].any()


def test_a_table_without_a_known_column_is_named() -> None:
    detector, strange = MetaDetector(networks(), SPEC), table(np.ones((3, 2)), ("x", "y"))
    for method in (detector.score, detector.contributions):
        with pytest.raises(ConfigurationError, match=r"none of the table's columns \('x', 'y'\)"):
            method(strange)


def test_the_caller_keeps_its_networks_as_they_are() -> None:
    nets = networks()
    MetaDetector(nets, SPEC).score(cohort(4))
    assert all(net.training for net in nets)
    assert all(p.requires_grad for net in nets for p in net.parameters())


def test_parts_that_do_not_fit_are_named() -> None:
    with pytest.raises(ConfigurationError, match="`networks`"):
        MetaDetector([], SPEC)
    with pytest.raises(ConfigurationError, match="3 features and the columns make 12"):
        MetaDetector([SetNetwork(3)], SPEC)
    with pytest.raises(ConfigurationError, match="calibration.scale"):
        Calibration(scale=0.0)
    with pytest.raises(ConfigurationError, match="calibration.offset"):
        Calibration(offset=float("nan"))
