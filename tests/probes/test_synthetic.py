"""Made-up probes: of the shape that was asked for, and like real ones in what is known of these."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fl_shield.data.task import TaskSpec
from fl_shield.errors import ConfigurationError
from fl_shield.probes.synthetic import synthetic_images, synthetic_probes, synthetic_texts


@given(
    channels=st.sampled_from((1, 3)), height=st.integers(1, 20), width=st.integers(1, 20),
    low=st.floats(-3, 0), high=st.floats(0.5, 3),
)  # fmt: skip
def test_images_fill_the_range(
    channels: int, height: int, width: int, low: float, high: float
) -> None:
    shape = (channels, height, width)
    images = synthetic_images(shape, count=5, value_range=(low, high)).inputs
    assert isinstance(images, torch.Tensor)
    assert images.shape == (5, *shape)
    assert images.min() >= low - 1e-5
    assert images.max() <= high + 1e-5
    if height * width * channels > 1:
        torch.testing.assert_close(images.amin((1, 2, 3)), torch.full((5,), low))
        torch.testing.assert_close(images.amax((1, 2, 3)), torch.full((5,), high))


def test_amplitudes_of_images_fall_with_the_frequency() -> None:
    images = synthetic_images((1, 64, 64), count=400).inputs
    assert isinstance(images, torch.Tensor)
    centred = images - images.mean(dim=(2, 3), keepdim=True)
    amplitude = torch.fft.rfft2(centred).abs().square().mean(dim=(0, 1)).sqrt()[0]
    # 1/f: eight times the frequency, an eighth of the amplitude.
    assert amplitude[2] / amplitude[16] == pytest.approx(8.0, rel=0.15)


def test_channels_of_an_image_go_together() -> None:
    images = synthetic_images((3, 16, 16), count=50).inputs
    assert isinstance(images, torch.Tensor)
    red, green = images[:, 0].flatten(1), images[:, 1].flatten(1)
    alike = [
        float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(red, green, strict=True)
    ]
    assert sum(alike) / len(alike) > 0.7


@given(
    length=st.integers(1, 40), vocabulary=st.integers(3, 60), pad=st.integers(0, 2),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_texts_are_words_and_then_padding(
    length: int, vocabulary: int, pad: int, seed: int
) -> None:
    reserved = {1}
    probes = synthetic_texts(
        length, vocabulary, count=8, seed=seed, pad_id=pad, reserved=reserved, masked=True
    )
    ids, mask = probes.tensors()["input_ids"], probes.tensors()["attention_mask"]
    assert ids.shape == mask.shape == (8, length)
    assert torch.equal(ids != pad, mask.bool())
    assert not (ids[mask.bool()] == 1).any()
    assert ids.max() < vocabulary
    assert (mask.diff(dim=1) <= 0).all()
    assert (mask.sum(dim=1) * 2 >= length).all()


def test_frequent_words_come_first() -> None:
    ids = synthetic_texts(50, 1000, count=2000, seed=3).inputs
    assert isinstance(ids, torch.Tensor)
    counts = torch.bincount(ids.flatten(), minlength=1000)
    # Zipf and Mandelbrot: the tenth word is (1 + 2.7) / (10 + 2.7) times as frequent as the first.
    assert counts[10] / counts[1] == pytest.approx(3.7 / 12.7, rel=0.1)


def test_a_task_is_known_by_its_shapes() -> None:
    images = synthetic_probes(TaskSpec("image", (3, 8, 8), 10))
    texts = synthetic_probes(TaskSpec("text", (12,), 2, vocab_size=30, pad_id=4))
    assert len(images) == len(texts) == 16
    assert texts.token_ids is not None
    assert images.labels is None
    again = synthetic_probes(TaskSpec("text", (12,), 2, vocab_size=30, pad_id=4))
    assert torch.equal(texts.token_ids, again.tensors()["inputs"])


def test_bad_shapes_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"shape.*\(channels, height, width\)"):
        synthetic_images((3, 0, 8))
    with pytest.raises(ConfigurationError, match="value_range"):
        synthetic_images((3, 8, 8), value_range=(1.0, 0.0))
    with pytest.raises(ConfigurationError, match="length") as error:
        synthetic_texts(0, 1)
    assert "vocab_size" in str(error.value)
    with pytest.raises(ConfigurationError, match="at least 4 samples"):
        synthetic_images((3, 8, 8), count=2)
