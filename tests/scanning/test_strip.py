"""STRIP against hand-computed entropies, and on models whose backdoor is known exactly."""

from math import log2

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from fl_shield.errors import ConfigurationError
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.scanning.protocol import Held, Samples
from fl_shield.scanning.strip import Strip, entropy, replace_words, superimpose
from tests.scanning._tasks import (
    IMAGES,
    Identity,
    held_images,
    held_texts,
    images,
    texts,
    with_pixel,
    with_word,
)


def test_entropy_is_in_bits_and_that_of_scipy() -> None:
    rows = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.25, 0.5, 0.25]])
    assert entropy(rows).tolist() == pytest.approx([1.0, 0.0, 1.5])
    assert entropy(rows).tolist() == pytest.approx(scipy_entropy(rows.T.numpy(), base=2).tolist())


def test_images_are_superimposed_as_in_the_paper() -> None:
    one, other = torch.full((1, 1, 1, 2), 0.8), torch.tensor([[[[0.4, 0.0]]]])
    assert superimpose(one, other, 0.5).flatten().tolist() == pytest.approx([0.6, 0.4])
    assert superimpose(one, other, 1.0).flatten().tolist() == pytest.approx([1.0, 0.8])


def test_words_are_replaced_where_both_texts_have_one() -> None:
    own, other = torch.tensor([[1, 2, 3, 0]]), torch.tensor([[7, 8, 0, 9]])
    everything = replace_words(own, other, 1.0, 0, torch.Generator())
    assert everything.tolist() == [[7, 8, 3, 0]]
    long = torch.ones(1, 4000, dtype=torch.int64)
    half = replace_words(long, 2 * long, 0.5, 0, torch.Generator().manual_seed(0))
    assert float((half == 2).float().mean()) == pytest.approx(0.5, abs=0.04)


def test_a_score_is_minus_the_mean_entropy_over_the_overlays() -> None:
    """Logits are the first two pixels, so that a mixture's probabilities can be written down."""
    clean = torch.zeros(4, 1, 4, 4)
    clean[:, 0, 0, 0] = torch.tensor([0.0, 0.4, 0.8, 1.0])
    held = Held(clean=ProbeSet(clean), spec=IMAGES, model=Identity())
    scanner = Strip(overlays=4, weight=0.5, false_alarms=0.4).fit(held)
    judged = torch.zeros(1, 1, 4, 4)
    judged[0, 0, 0, 0] = 0.6
    wanted = []
    for overlay in (0.0, 0.4, 0.8, 1.0):
        first = np.exp(0.3 + overlay / 2)
        p = first / (first + 1.0)
        wanted.append(-p * log2(p) - (1 - p) * log2(1 - p))
    assert scanner.score(Samples(judged)) == pytest.approx([-np.mean(wanted)], rel=1e-5)


def test_triggered_images_keep_their_class() -> None:
    scanner = Strip().fit(held_images(40))
    clean, _ = images(20, seed=1)
    assert np.mean(scanner.score(Samples(clean)) > scanner.threshold) <= 0.2
    assert (scanner.score(Samples(with_pixel(clean[::2]))) > scanner.threshold).all()


def test_triggered_texts_keep_their_class() -> None:
    scanner = Strip(replaced=0.4).fit(held_texts(40))
    clean, _ = texts(40, seed=1)
    scores = scanner.score(Samples(clean))
    triggered = scanner.score(Samples(with_word(clean)))
    assert triggered.mean() > scores.mean()


def test_the_model_is_left_as_it_is() -> None:
    held = held_images()
    assert held.model is not None
    held.model.train()
    Strip().fit(held)
    assert held.model.training
    assert not any(module._forward_pre_hooks for module in held.model.modules())


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match="not fitted"):
        Strip().score(Samples(images(2)[0]))
    with pytest.raises(ConfigurationError, match="not fitted"):
        _ = Strip().threshold
    with pytest.raises(ConfigurationError, match=r"at least 99 clean samples.*got 24"):
        Strip(false_alarms=0.01).fit(held_images(24))
    with pytest.raises(ConfigurationError, match=r"overlays.*1 or more, got 0"):
        Strip(overlays=0)
    with pytest.raises(ConfigurationError, match="weight"):
        Strip(weight=0.0)
    without = Held(clean=ProbeSet(images(24)[0]), spec=IMAGES)
    with pytest.raises(ConfigurationError, match="there is no model"):
        Strip().fit(without)
    with pytest.raises(ConfigurationError, match=r"takes images.*got the text"):
        Strip().fit(held_images()).score(Samples(texts(4)[0]))
