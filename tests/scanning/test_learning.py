"""Meta-training on shadow models whose backdoors are known, and the thresholds of the card."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC

from fl_shield.detector.features import FeatureSpec
from fl_shield.errors import ConfigurationError, StateError
from fl_shield.scanning.describing import SampleDescriber
from fl_shield.scanning.learning import (
    FIT,
    LINEAR,
    judged_scores,
    learn,
    limits_of,
    unseen_scores,
    with_card,
)
from fl_shield.scanning.meta_shield import MetaShieldSamples, card_threshold
from fl_shield.scanning.protocol import Held, Samples
from fl_shield.scanning.sample_detector import (
    SampleDetector,
    judged_features,
    load_sample_detector,
    save_sample_detector,
)
from fl_shield.scanning.shadow_tasks import as_rounds
from fl_shield.shadow.table import EpisodeTable
from tests.scanning._tasks import (
    held_images,
    held_texts,
    images,
    texts,
    with_pixel,
    with_word,
)


def tables(domain: str, seed: int) -> list[EpisodeTable]:
    """Return rounds of a shadow task: twelve clean inputs and six triggered ones."""
    is_image = domain.startswith("image")
    held: Held = (held_images if is_image else held_texts)(16, seed=seed)
    inputs, _ = (images if is_image else texts)(24, seed=seed + 50)
    bad = (with_pixel if is_image else with_word)(inputs[12::2])
    describer = SampleDescriber(held, "test")
    facts = {"architecture": "pixels", "trigger": "known", "clean_samples": 16}
    reference = EpisodeTable(
        domain, f"{domain}-{seed}", 1, describer.names, describer.reference(),
        np.zeros(16, dtype=bool), np.arange(16), facts,
    )  # fmt: skip
    rows = describer.describe(torch.cat([inputs[:12], bad]))
    return as_rounds(reference, rows, [False] * 12 + [True] * 6)


@pytest.fixture(scope="module")
def shadow() -> list[EpisodeTable]:
    torch.manual_seed(0)
    domains = ("images a", "images b", "texts a", "texts b")
    return [t for k, name in enumerate(domains) for t in tables(name, 10 * k)]


@pytest.fixture(scope="module")
def folder(shadow: list[EpisodeTable], tmp_path_factory: pytest.TempPathFactory) -> Path:
    def without(domains: object) -> object:
        return learn([t for t in shadow if t.domain not in domains])  # type: ignore[operator]

    limits = limits_of(unseen_scores(shadow, without))  # type: ignore[arg-type]
    assert set(limits) == {"0.05", "0.1"}  # 48 clean inputs are too few for 1 % and 2 %
    folder = tmp_path_factory.mktemp("detector")
    return save_sample_detector(folder, with_card(learn(shadow), limits, shadow))


def test_a_round_is_an_input_among_clean_ones(shadow: list[EpisodeTable]) -> None:
    assert {len(table) for table in shadow} == {17}
    assert not any(table.malicious[:16].any() for table in shadow)
    assert sum(bool(table.malicious[-1]) for table in shadow) == 24


def test_another_modality_is_learned_from_one(shadow: list[EpisodeTable]) -> None:
    """Trained on texts only, judged on images: what is learned has no dimension."""
    detector = learn([t for t in shadow if t.domain.startswith("texts")])
    scores, truth = judged_scores(detector, [t for t in shadow if t.domain == "images a"])
    assert scores[truth].min() > np.median(scores[~truth])


def test_the_scanner_finds_triggered_inputs(folder: Path) -> None:
    scanner = MetaShieldSamples(weights=folder, false_alarms=0.1).fit(held_images(16, seed=7))
    inputs, _ = images(40, seed=99)
    assert (scanner.score(Samples(with_pixel(inputs[::2]))) > scanner.threshold).mean() > 0.9
    assert (scanner.score(Samples(inputs)) > scanner.threshold).mean() <= 0.25


def test_a_score_does_not_depend_on_the_other_inputs(folder: Path) -> None:
    scanner = MetaShieldSamples(weights=folder).fit(held_texts(16))
    inputs, _ = texts(5, seed=3)
    together = scanner.score(Samples(inputs))
    assert together[2:3] == pytest.approx(scanner.score(Samples(inputs[2:3])), abs=1e-5)


def test_many_clean_samples_make_a_threshold_of_their_own(folder: Path) -> None:
    few = MetaShieldSamples(weights=folder).fit(held_images(34))
    many = MetaShieldSamples(weights=folder).fit(held_images(60))
    assert few.threshold == card_threshold(few._detector.card, 0.05, 0, 0)
    assert many.threshold != few.threshold


def test_too_few_clean_samples_are_named(folder: Path) -> None:
    scanner = MetaShieldSamples(weights=folder, false_alarms=0.02)
    with pytest.raises(ConfigurationError, match=r"at least 65 clean samples.*got 16.*to 0\.05"):
        scanner.fit(held_images(16))
    scanner.fit(held_images(66))  # 49 others besides the 16 and one to spare


def test_the_next_stricter_rate_is_taken() -> None:
    card = {"thresholds": {"0.01": 3.0, "0.05": 2.0, "0.1": 1.0}}
    assert card_threshold(card, 0.07, 0, 0) == 2.0
    assert card_threshold(card, 0.05, 0, 0) == 2.0
    with pytest.raises(StateError, match="has no 'thresholds'"):
        card_threshold({}, 0.05, 0, 0)


def test_thresholds_hear_every_data_set_equally() -> None:
    clean = np.zeros(1000, dtype=bool)
    judged = {
        "large": (np.linspace(0, 1, 1000), clean),
        "small": (np.linspace(10, 11, 50), clean[:50]),
    }
    limits = limits_of(judged)
    assert 10.0 < limits["0.05"] < 11.0
    assert limits["0.1"] < limits["0.05"]


def test_a_threshold_lies_halfway_where_there_is_room() -> None:
    scores = np.r_[np.linspace(0.0, 1.0, 99), np.full(20, 5.0)]
    truth = np.arange(119) >= 99
    low = np.sort(scores[:99])[96]  # at 3 % for 5 %: ⌈100 · 0.97⌉ = 97th smallest
    assert limits_of({"one": (scores, truth)})["0.05"] == pytest.approx((low + 5.0) / 2)
    overlapping = np.where(truth, 0.5, scores)
    assert limits_of({"one": (overlapping, truth)})["0.05"] == pytest.approx(low)


def test_a_damaged_detector_is_named(folder: Path, tmp_path: Path) -> None:
    detector = load_sample_detector(folder)
    save_sample_detector(tmp_path, detector)
    assert load_sample_detector(tmp_path).weights.tolist() == detector.weights.tolist()
    (tmp_path / "detector.safetensors").write_bytes(b"nothing")
    with pytest.raises(StateError, match="does not belong to detector.json"):
        load_sample_detector(tmp_path)
    (tmp_path / "detector.json").write_text('{"format": "fl_shield.sample_detector", "version": 9}')
    with pytest.raises(StateError, match="has version 9; this fl_shield reads 2"):
        load_sample_detector(tmp_path)
    (tmp_path / "detector.json").write_text("{}")
    with pytest.raises(StateError, match="is no detector of samples"):
        load_sample_detector(tmp_path)
    with pytest.raises(ConfigurationError, match="`weights` to be finite, of shape"):
        SampleDetector(detector.spec, detector.weights[1:], 0.0)


def test_the_radial_part_by_hand() -> None:
    spec = FeatureSpec(("gain@fine",), (2.0,))
    support, pull = np.array([[0.0, 0.0], [1.0, 2.0]]), np.array([-1.5, 2.0])
    detector = SampleDetector(spec, np.zeros(2), 0.25, support, pull, reach=0.1)
    reference, row = np.arange(5.0)[:, None], np.array([[6.0]])
    x = np.array([np.log1p(3.5 / (1.4826 * 1.5 + 0.2)), np.log1p(3.5 / 2)])  # as below
    near = np.exp(-0.1 * ((x - support) ** 2).sum(axis=1))
    found = detector.plain_scores(("gain@fine",), reference, row)
    assert found == pytest.approx([0.25 + near @ pull])
    with pytest.raises(ConfigurationError, match="`support` to be of shape"):
        SampleDetector(spec, np.zeros(2), 0.0, support[:, :1], pull)


def test_the_scores_are_those_of_the_support_vector_machine(shadow: list[EpisodeTable]) -> None:
    """Of scikit-learn, on the same features; here every group weighs what it should."""
    detector = learn(shadow)
    features = np.array(
        [judged_features(detector.spec, t.names, t.raw[:-1], t.raw[-1]) for t in shadow]
    )
    truth = np.array([bool(t.malicious[-1]) for t in shadow])
    counts = Counter((t.domain, bool(t.malicious[-1])) for t in shadow)
    weight = np.array([1.0 / counts[t.domain, bool(t.malicious[-1])] for t in shadow])

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        straight = LINEAR * detector.reach * a @ b.T
        return np.asarray(straight + rbf_kernel(a, b, gamma=detector.reach))

    machine = SVC(C=FIT, kernel=kernel).fit(features, truth, weight * len(weight) / weight.sum())
    scores = [detector.plain_scores(t.names, t.raw[:-1], t.raw[-1:])[0] for t in shadow]
    assert scores == pytest.approx(machine.decision_function(features), abs=1e-3)


def test_scores_are_told_in_units_of_the_clean_samples(shadow: list[EpisodeTable]) -> None:
    """Scaling or shifting the plain scores changes nothing but what is known of other tasks."""
    detector, table = learn(shadow), shadow[0]
    clean = detector.clean_scores(table.names, table.raw[:-1])
    row = table.raw[-1:]
    plain = detector.plain_scores(table.names, table.raw[:-1], row)
    unit = np.sqrt((clean.var() + detector.spread**2) / 2)
    wanted = (plain - clean.mean()) / unit
    assert detector.score(table.names, table.raw[:-1], row) == pytest.approx(wanted)
    louder = replace(
        detector, weights=3 * detector.weights, pull=3 * detector.pull,
        bias=3 * detector.bias + 7, spread=3 * detector.spread,
    )  # fmt: skip
    assert louder.score(table.names, table.raw[:-1], row) == pytest.approx(wanted)


def test_the_linear_part_by_hand() -> None:
    """One column: five clean values 0 to 4 and an input of 6; the unit is 2."""
    detector = SampleDetector(FeatureSpec(("gain@fine",), (2.0,)), np.array([1.0, 10.0]), 0.5)
    reference, row = np.arange(5.0)[:, None], np.array([[6.0]])
    # Of 0, 1, 2, 3, 4, 6 the median is 2.5 and the median distance from it 1.5.
    relative = np.log1p(3.5 / (1.4826 * 1.5 + 0.2))
    wanted = 0.5 + relative + 10 * np.log1p(3.5 / 2)
    found = detector.plain_scores(("gain@fine",), reference, row)
    assert found == pytest.approx([wanted], rel=1e-6)


def test_bad_input_is_one_sentence(shadow: list[EpisodeTable], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="between 0 and 1, got 2"):
        MetaShieldSamples(false_alarms=2)
    with pytest.raises(ConfigurationError, match="a folder with detector.json"):
        MetaShieldSamples(weights=tmp_path).fit(held_images(16))
    with pytest.raises(ConfigurationError, match="not fitted"):
        MetaShieldSamples().score(Samples(images(4)[0]))
    with pytest.raises(ConfigurationError, match="two data sets or more"):
        unseen_scores(shadow[:3], lambda _: learn(shadow))
