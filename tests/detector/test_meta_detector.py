"""The learned detector: calibration by hand, equivariance, completeness of contributions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_shield.descriptors.standardise import standardise
from fl_shield.descriptors.table import DescriptorTable
from fl_shield.detector import Detector, MetaDetector
from fl_shield.detector.features import FeatureSpec, features_of
from fl_shield.detector.meta_detector import Calibration
from fl_shield.detector.set_network import SetNetwork
from fl_shield.errors import ConfigurationError
from fl_shield.judge.policy import Policy

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
    even = Calibration(offset=0.25, scale=0.5, even=-0.5)
    assert MetaDetector(nets, SPEC, even).even_score == pytest.approx((-0.5 - 0.25) / 0.5)
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
    detector = MetaDetector(networks(), SPEC, Calibration(scale=0.01))
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
    with pytest.raises(ConfigurationError, match="3 features and the columns make 16"):
        MetaDetector([SetNetwork(3)], SPEC)
    with pytest.raises(ConfigurationError, match="calibration.scale"):
        Calibration(scale=0.0)
    with pytest.raises(ConfigurationError, match="calibration.offset"):
        Calibration(offset=float("nan"))


@settings(max_examples=60)
@given(
    st.integers(0, 10_000), st.integers(100, 400), st.sampled_from([0.01, 0.05, 0.2]),
    st.floats(0.1, 5.0),
)  # fmt: skip
def test_the_threshold_lets_the_wanted_share_of_honest_updates_pass(
    seed: int, count: int, share: float, scale: float
) -> None:
    odds = np.random.default_rng(seed).standard_normal(count) * 3.0 - 2.0
    calibration = Calibration.from_benign(odds, share, scale)
    scores = (odds - calibration.offset) / calibration.scale
    flagged = int((scores >= calibration.threshold).sum())
    assert flagged == count - int(np.ceil((count + 1) * (1.0 - share) - 1e-9))
    assert flagged <= count * share + 1
    assert calibration.threshold == Policy.threshold
    assert calibration.scale == scale


def test_the_limit_is_the_conformal_quantile() -> None:
    calibration = Calibration.from_benign(np.arange(1.0, 100.0), 0.05)  # ⌈100 · 0.95⌉ = 95th of 99
    assert calibration.offset == pytest.approx(95.0 - calibration.threshold, abs=1e-3)


def test_too_few_honest_updates_to_calibrate() -> None:
    Calibration.from_benign(np.zeros(99), 0.01)
    with pytest.raises(ConfigurationError, match="99 honest updates or more for 0.01 false alarms"):
        Calibration.from_benign(np.zeros(98), 0.01)
    with pytest.raises(ConfigurationError, match="`log_odds` to be finite"):
        Calibration.from_benign([0.0, float("inf")], 0.5)
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        Calibration.from_benign([0.0], 0.0)
