"""Meta-training on shadow models whose backdoors are known, and the thresholds of the card."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fl_shield.detector.features import FeatureSpec
from fl_shield.errors import ConfigurationError, StateError
from fl_shield.scanning.describing import SampleDescriber
from fl_shield.scanning.learning import (
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
    low = np.sort(scores[:99])[94]  # ⌈100 · 0.95⌉ = 95th smallest
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
    with pytest.raises(StateError, match="has version 9; this fl_shield reads 1"):
        load_sample_detector(tmp_path)
    (tmp_path / "detector.json").write_text("{}")
    with pytest.raises(StateError, match="is no detector of samples"):
        load_sample_detector(tmp_path)
    with pytest.raises(ConfigurationError, match="`weights` to be finite, of shape"):
        SampleDetector(detector.spec, detector.weights[1:], 0.0)


def test_log_odds_by_hand() -> None:
    """One column: five clean values 0 to 4 and an input of 6; the unit is 2."""
    detector = SampleDetector(FeatureSpec(("gain@fine",), (2.0,)), np.array([1.0, 10.0]), 0.5)
    reference, row = np.arange(5.0)[:, None], np.array([[6.0]])
    # Of 0, 1, 2, 3, 4, 6 the median is 2.5 and the median distance from it 1.5.
    relative = np.log1p(3.5 / (1.4826 * 1.5 + 0.2))
    wanted = 0.5 + relative + 10 * np.log1p(3.5 / 2)
    assert detector.score(("gain@fine",), reference, row) == pytest.approx([wanted], rel=1e-6)


def test_bad_input_is_one_sentence(shadow: list[EpisodeTable], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="between 0 and 1, got 2"):
        MetaShieldSamples(false_alarms=2)
    with pytest.raises(ConfigurationError, match="a folder with detector.json"):
        MetaShieldSamples(weights=tmp_path).fit(held_images(16))
    with pytest.raises(ConfigurationError, match="not fitted"):
        MetaShieldSamples().score(Samples(images(4)[0]))
    with pytest.raises(ConfigurationError, match="two data sets or more"):
        unseen_scores(shadow[:3], lambda _: learn(shadow))
