"""Patches of the two photographs that scikit-learn brings: natural images on every machine."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fl_shield.data.cache import cached_splits
from fl_shield.data.sampling import limited, stratified_split
from fl_shield.data.task import Split, Task, TaskSpec
from fl_shield.errors import DataError, expected

PHOTOS = ("china.jpg", "flower.jpg")
COLUMNS = 5
SIZE = 32
CROP = (20, 72)
"""Sides of the square patches in pixels, before they are brought to `SIZE`."""


def load(
    samples_per_class: int = 600,
    test_share: float = 0.2,
    seed: int = 0,
    max_train: int | None = None,
    max_test: int | None = None,
) -> Task:
    """Return a 10-class task: which fifth of which photograph a patch, 3x32x32, was cut from.

    Colours, textures and shapes are those of photographs, and neighbouring fifths look alike, so
    that models stay well below certainty. Patches overlap, also those of training and test: a task
    to learn detectors from, not to measure models by.

    Args:
        samples_per_class: Patches of each fifth.
        test_share: Share of the patches held out for evaluation.
        seed: Seed of the cutting.
        max_train: Limit of the training images; None for all.
        max_test: Limit of the test images; None for all.

    Raises:
        DataError: if `samples_per_class` is below 10.
    """
    if samples_per_class < 10:
        raise DataError(expected("data.samples_per_class", "10 or more", samples_per_class))

    def build() -> tuple[Split, Split, tuple[str, ...]]:
        from sklearn.datasets import load_sample_image

        rng = np.random.default_rng(seed)
        names, images = [], []
        for photo in PHOTOS:
            pixels = np.asarray(load_sample_image(photo))
            for column in range(COLUMNS):
                names.append(f"{photo.partition('.')[0]} {column + 1}")
                images += [_patch(pixels, column, rng) for _ in range(samples_per_class)]
        labels = torch.arange(len(names)).repeat_interleave(samples_per_class)
        inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
        return *stratified_split(Split(inputs, labels), test_share), tuple(names)

    key = {"loader": "photos", "samples": samples_per_class, "share": test_share, "seed": seed}
    train, test, classes = cached_splits(key, build)
    return Task(
        name="photos",
        spec=TaskSpec("image", (3, SIZE, SIZE), len(classes)),
        train=limited(train, max_train),
        test=limited(test, max_test),
        classes=classes,
    )


def _patch(pixels: NDArray[np.uint8], column: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return one `(32, 32, 3)` patch of a fifth, mirrored half of the time, lit at random."""
    from PIL import Image

    height, width, _ = pixels.shape
    side = int(rng.integers(*CROP, endpoint=True))
    left = round(width / COLUMNS * (column + rng.random())) - side // 2
    left = min(max(left, 0), width - side)
    top = int(rng.integers(0, height - side, endpoint=True))
    cut = Image.fromarray(pixels[top : top + side, left : left + side])
    image = np.asarray(cut.resize((SIZE, SIZE), Image.Resampling.BILINEAR), dtype=np.float64)
    if rng.random() < 0.5:
        image = image[:, ::-1]
    image = image * rng.uniform(0.6, 1.3) + rng.uniform(-25, 25) + rng.normal(0, 8, image.shape)
    return np.asarray(np.clip(image, 0, 255), dtype=np.uint8)
