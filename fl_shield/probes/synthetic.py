"""Probes for a server that holds no clean sample at all: made up, but of the shape of real ones.

A detector compares the clients of a round, so that it can do without samples of the task: what an
update does to made-up inputs says less than what it does to real ones, but not nothing (the table
*Clean samples of the server* in `docs/results/detector.md` has a row without any).
"""

from __future__ import annotations

from collections.abc import Collection

import torch

from fl_shield.data.task import TaskSpec
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.probes.probe_set import MAX_PROBES, Inputs, ProbeSet

COLOUR = 0.3
"""Weight of what a channel has for itself, beside what all channels share."""

ZIPF_SHIFT = 2.7
"""Shift of the Zipf–Mandelbrot law of word frequencies (Mandelbrot 1953)."""


def synthetic_images(
    shape: tuple[int, int, int],
    *,
    count: int = MAX_PROBES,
    seed: int = 0,
    value_range: tuple[float, float] = (0.0, 1.0),
) -> ProbeSet:
    """Return images of noise whose amplitude falls with the frequency, as in natural images.

    Amplitudes are 1/f (Field, *Relations between the statistics of natural images and the response
    properties of cortical cells*, 1987), phases random; each image fills the range.

    Args:
        shape: `(channels, height, width)` of the model's inputs.
        count: Images.
        seed: The same seed gives the same images.
        value_range: Lowest and highest value, as the model takes them.

    Raises:
        ConfigurationError: if the shape or the range is none.
    """
    low, high = value_range
    problems = []
    if len(shape) != 3 or min(shape) < 1:
        problems.append(expected("shape", "(channels, height, width)", shape))
    if not low < high:
        problems.append(expected("value_range", "(lowest, highest)", value_range))
    raise_all(problems, ConfigurationError)
    channels, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    # The mean of an image has no frequency; it counts as the lowest that there is.
    falling = 1.0 / (rows.square() + columns.square()).sqrt().clamp_min(1.0 / max(height, width))

    def noise(parts: int) -> torch.Tensor:
        white = torch.randn(count, parts, height, width, generator=generator)
        coloured: torch.Tensor = torch.fft.irfft2(
            torch.fft.rfft2(white) * falling, s=(height, width)
        )
        return coloured

    images = noise(1) + COLOUR * noise(channels)
    darkest, brightest = images.amin((1, 2, 3), True), images.amax((1, 2, 3), True)
    unit = (images - darkest) / (brightest - darkest).clamp_min(torch.finfo(images.dtype).tiny)
    return ProbeSet(low + (high - low) * unit)


def synthetic_texts(
    length: int,
    vocab_size: int,
    *,
    count: int = MAX_PROBES,
    seed: int = 0,
    pad_id: int = 0,
    reserved: Collection[int] = (),
    masked: bool = False,
) -> ProbeSet:
    """Return texts of words drawn by Zipf's law, between half of the length and all of it.

    Token ids are taken to be in the order of their frequency, as those of most vocabularies nearly
    are.

    Args:
        length: Tokens of a text, with padding.
        vocab_size: Token ids.
        count: Texts.
        seed: The same seed gives the same texts.
        pad_id: Token id that texts are padded with.
        reserved: Other token ids that are no words.
        masked: Whether the model is called with `input_ids` and `attention_mask`, as those of
            `transformers` are, not with the token ids alone.

    Raises:
        ConfigurationError: if no word is left, or texts have no room for one.
    """
    forbidden = {pad_id, *reserved}
    words = torch.tensor([token for token in range(vocab_size) if token not in forbidden])
    problems = []
    if length < 1:
        problems.append(expected("length", "1 or more tokens", length))
    if not len(words):
        problems.append(expected("vocab_size", "more than padding and reserved", vocab_size))
    raise_all(problems, ConfigurationError)
    generator = torch.Generator().manual_seed(seed)
    frequency = 1.0 / (torch.arange(1, len(words) + 1) + ZIPF_SHIFT)
    drawn = torch.multinomial(frequency, count * length, replacement=True, generator=generator)
    lengths = torch.randint(-(-length // 2), length + 1, (count, 1), generator=generator)
    written = torch.arange(length)[None] < lengths
    ids = torch.where(written, words[drawn].reshape(count, length), pad_id)
    inputs: Inputs = {"input_ids": ids, "attention_mask": written.long()} if masked else ids
    return ProbeSet(inputs)


def synthetic_probes(spec: TaskSpec, *, count: int = MAX_PROBES, seed: int = 0) -> ProbeSet:
    """Return made-up probes of a task, of which nothing but its shapes is known."""
    if spec.modality == "image":
        channels, height, width = spec.input_shape
        return synthetic_images((channels, height, width), count=count, seed=seed)
    return synthetic_texts(
        spec.input_shape[0], spec.vocab_size, count=count, seed=seed, pad_id=spec.pad_id
    )
