"""The detector of samples in the package, on models that it has never seen."""

import json

import numpy as np
import pytest
import torch

from fl_shield.metrics.detection import auroc
from fl_shield.scanning.meta_shield import LIMITS, SHIPPED, MetaShieldSamples
from fl_shield.scanning.protocol import Held, Samples
from fl_shield.scanning.sample_detector import load_sample_detector
from tests.scanning._tasks import held_images, held_texts, images, texts, with_pixel, with_word


def test_the_card_says_what_it_has_seen() -> None:
    card = load_sample_detector(SHIPPED).card
    assert card == json.loads((SHIPPED / "detector.json").read_text(encoding="utf-8"))
    assert {"shadow_models", "architectures", "unseen_data_sets", "command"} <= set(card)
    assert "0.05" in card[LIMITS]
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 1_000_000


@pytest.mark.parametrize(
    ("held", "clean", "triggered"),
    [
        (held_images(16), images(20, seed=8)[0], with_pixel(images(20, seed=8)[0][::2])),
        (held_texts(16), texts(20, seed=8)[0], with_word(texts(20, seed=8)[0][::2])),
    ],
    ids=["images", "texts"],
)
def test_it_tells_triggered_inputs_of_hand_made_backdoors(
    held: Held, clean: torch.Tensor, triggered: torch.Tensor
) -> None:
    scanner = MetaShieldSamples().fit(held)
    scores = scanner.score(Samples(torch.cat([clean, triggered])))
    truth = np.arange(30) >= 20
    found = auroc(scores.tolist(), truth.tolist())
    assert found is not None
    assert found > 0.95
