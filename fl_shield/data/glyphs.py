"""Letters in the fonts that matplotlib brings: colour images that every machine can make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fl_shield.data.cache import cached_splits
from fl_shield.data.sampling import limited, stratified_split
from fl_shield.data.task import Split, Task, TaskSpec
from fl_shield.errors import DataError, expected

LETTERS = "ABDEGHKMRS"
FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-Italic.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
    "STIXGeneralItalic.ttf",
)
SIZE = 32


def load(
    samples_per_class: int = 600,
    test_share: float = 0.2,
    seed: int = 0,
    max_train: int | None = None,
    max_test: int | None = None,
) -> Task:
    """Return a 10-class task of rotated letters of random font, size, place and colours, 3x32x32.

    Args:
        samples_per_class: Images of each letter.
        test_share: Share of the images held out for evaluation.
        seed: Seed of the drawing.
        max_train: Limit of the training images; None for all.
        max_test: Limit of the test images; None for all.

    Raises:
        DataError: if `samples_per_class` is below 10.
    """
    if samples_per_class < 10:
        raise DataError(expected("data.samples_per_class", "10 or more", samples_per_class))

    def build() -> tuple[Split, Split, tuple[str, ...]]:
        rng = np.random.default_rng(seed)
        images = [_draw(letter, rng) for letter in LETTERS for _ in range(samples_per_class)]
        labels = torch.arange(len(LETTERS)).repeat_interleave(samples_per_class)
        inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
        return *stratified_split(Split(inputs, labels), test_share), tuple(LETTERS)

    key = {"loader": "glyphs", "samples": samples_per_class, "share": test_share, "seed": seed}
    train, test, classes = cached_splits(key, build)
    return Task(
        name="glyphs",
        spec=TaskSpec("image", (3, SIZE, SIZE), len(LETTERS)),
        train=limited(train, max_train),
        test=limited(test, max_test),
        classes=classes,
    )


def _draw(letter: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return one `(32, 32, 3)` image: a letter over a shaded ground, with noise."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = ImageFont.truetype(str(folder / str(rng.choice(FONTS))), int(rng.integers(16, 28)))
    mask = Image.new("L", (SIZE, SIZE))
    middle = SIZE / 2 + rng.uniform(-3, 3, size=2)
    ImageDraw.Draw(mask).text(tuple(middle.tolist()), letter, fill=255, font=font, anchor="mm")
    ink = np.asarray(mask.rotate(float(rng.uniform(-25, 25))), dtype=np.float64)[..., None] / 255
    ramp = np.linspace(-1, 1, SIZE) * rng.uniform(0, 50)
    ground = rng.uniform(30, 225, size=3) + (
        ramp[:, None, None] if rng.random() < 0.5 else ramp[None, :, None]
    )
    colour = (ground.mean(axis=(0, 1)) + 128 + rng.uniform(-60, 60, size=3)) % 256
    image = ground * (1 - ink) + colour * ink + rng.normal(0, 12, size=(SIZE, SIZE, 3))
    return np.asarray(np.clip(image, 0, 255), dtype=np.uint8)
