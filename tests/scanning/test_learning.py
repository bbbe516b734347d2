"""Meta-training on shadow models whose backdoors are known, and the thresholds of the card."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fl_shield.errors import ConfigurationError, StateError
from fl_shield.meta.settings import MetaTraining
from fl_shield.scanning.describing import SampleDescriber
from fl_shield.scanning.learning import (
    clean_scores,
    judged_scores,
    learn,
    limits_of,
    save_sample_detector,
)
from fl_shield.scanning.meta_shield import MetaShieldSamples, card_threshold
from fl_shield.scanning.protocol import Held, Samples
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

SETTINGS = MetaTraining(networks=1, steps=60, rounds=16, hidden=16, learning_rate=1e-2)


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
        return learn([t for t in shadow if t.domain not in domains], SETTINGS)  # type: ignore[operator]

    limits = limits_of(clean_scores(shadow, without))  # type: ignore[arg-type]
    assert set(limits) == {"0.05", "0.1"}  # 48 clean inputs are too few for 1 % and 2 %
    return save_sample_detector(
        tmp_path_factory.mktemp("detector"), learn(shadow, SETTINGS), limits, shadow, SETTINGS
    )


def test_a_round_is_an_input_among_clean_ones(shadow: list[EpisodeTable]) -> None:
    assert {len(table) for table in shadow} == {17}
    assert not any(table.malicious[:16].any() for table in shadow)
    assert sum(bool(table.malicious[-1]) for table in shadow) == 24


def test_another_modality_is_learned_from_one(shadow: list[EpisodeTable]) -> None:
    """Trained on texts only, judged on images: what is learned has no dimension."""
    detector = learn([t for t in shadow if t.domain.startswith("texts")], SETTINGS)
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
    scores = {"large": np.linspace(0, 1, 1000), "small": np.linspace(10, 11, 50)}
    limits = limits_of(scores)
    assert 10.0 < limits["0.05"] < 11.0
    assert limits["0.1"] < limits["0.05"]


def test_bad_input_is_one_sentence(shadow: list[EpisodeTable], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="between 0 and 1, got 2"):
        MetaShieldSamples(false_alarms=2)
    with pytest.raises(ConfigurationError, match="a folder with detector.json"):
        MetaShieldSamples(weights=tmp_path).fit(held_images(16))
    with pytest.raises(ConfigurationError, match="not fitted"):
        MetaShieldSamples().score(Samples(images(4)[0]))
    with pytest.raises(ConfigurationError, match="two data sets or more"):
        clean_scores(shadow[:3], lambda _: learn(shadow, SETTINGS))
