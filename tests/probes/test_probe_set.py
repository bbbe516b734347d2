"""Probe sets are checked once, with one clear sentence for each way to get them wrong."""

import pytest
import torch

from fl_shield.errors import ConfigurationError
from fl_shield.probes.probe_set import ProbeSet, as_probe_set
from fl_shield.probes.views import build_views, concatenate

IMAGES = torch.rand(8, 1, 4, 4)
LABELS = torch.arange(8) % 3
TOKENS = torch.randint(1, 50, (8, 12))


def test_accepts_the_friendly_forms() -> None:
    for probes in (ProbeSet(IMAGES), IMAGES, (IMAGES, LABELS), {"input_ids": TOKENS}):
        assert len(as_probe_set(probes)) == 8


@pytest.mark.parametrize(
    ("inputs", "labels", "classes", "match"),
    [
        (IMAGES[:3], None, None, "at least 4 samples, got 3"),
        (IMAGES.flatten(), None, None, "a batch of samples"),
        ((IMAGES * 255).to(torch.uint8), None, None, r"inputs\.float\(\) / 255"),
        (torch.full((8, 3), float("nan")), None, None, "finite"),
        ({}, None, None, "holds no tensors"),
        ({"a": IMAGES, "b": IMAGES[:5]}, None, None, r"one length, got \[5, 8\]"),
        (IMAGES, LABELS.float(), None, "integer class indices"),
        (IMAGES, LABELS[:4], None, r"of shape \(8,\)"),
        (IMAGES, LABELS, 2, "from 0 below 2, got .0 to 2."),
        (IMAGES, LABELS - 1, None, "got .-1 to 1."),
    ],
)
def test_refuses_what_it_cannot_use(inputs, labels, classes, match) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigurationError, match=match):
        ProbeSet(inputs, labels, classes)


def test_says_what_a_probe_set_is_when_given_something_else() -> None:
    with pytest.raises(ConfigurationError, match="16 or more clean samples"):
        as_probe_set(None)


def test_only_integer_matrices_are_text() -> None:
    assert ProbeSet(IMAGES).token_ids is None
    assert ProbeSet(TOKENS).token_ids is TOKENS
    assert ProbeSet({"input_ids": TOKENS, "attention_mask": TOKENS}).token_ids is TOKENS


def test_noise_keeps_shape_range_and_seed() -> None:
    views = build_views(ProbeSet(IMAGES), seed=3)
    noise = views["noise"]
    assert isinstance(noise, torch.Tensor)
    assert noise.shape == IMAGES.shape
    assert noise.min() >= IMAGES.min()
    assert noise.max() <= IMAGES.max()
    assert torch.equal(noise, build_views(ProbeSet(IMAGES), seed=3)["noise"])  # type: ignore[arg-type]
    assert not torch.equal(noise, build_views(ProbeSet(IMAGES), seed=4)["noise"])  # type: ignore[arg-type]


def test_token_noise_uses_the_tokens_of_the_clean_text() -> None:
    noise = build_views(ProbeSet(TOKENS), seed=0)["noise"]
    assert isinstance(noise, torch.Tensor)
    assert torch.equal(noise.flatten().sort().values, TOKENS.flatten().sort().values)


def test_views_of_named_tensors_stay_together() -> None:
    mask = torch.ones_like(TOKENS)
    views = build_views(ProbeSet({"input_ids": TOKENS, "attention_mask": mask}), seed=0)
    batch, slices = concatenate(views)
    assert set(batch) == {"input_ids", "attention_mask"}
    assert torch.equal(batch["input_ids"][slices["clean"]], TOKENS)  # type: ignore[index]
    assert slices["noise"] == slice(8, 16)
