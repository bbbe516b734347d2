"""Patches of the two photographs that scikit-learn brings: natural images on every machine."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fl_shield.data.drawn import SIZE, drawn_task
from fl_shield.data.task import Task

PHOTOS = ("china.jpg", "flower.jpg")
COLUMNS = 5
CLASSES = tuple(
    f"{photo.partition('.')[0]} {column + 1}" for photo in PHOTOS for column in range(COLUMNS)
)
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
    return drawn_task(
        "photos",
        CLASSES,
        lambda label, rng: _patch(_pixels(PHOTOS[label // COLUMNS]), label % COLUMNS, rng),
        samples_per_class,
        test_share,
        seed,
        max_train,
        max_test,
    )


@lru_cache
def _pixels(photo: str) -> NDArray[np.uint8]:
    """Return a photograph, `(height, width, 3)`."""
    from sklearn.datasets import load_sample_image

    return np.asarray(load_sample_image(photo))


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
