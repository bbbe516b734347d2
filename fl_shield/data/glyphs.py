"""Letters in the fonts that matplotlib brings: colour images that every machine can make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_shield.data.drawn import SIZE, drawn_task
from fl_shield.data.task import Task

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
    return drawn_task(
        "glyphs",
        LETTERS,
        lambda label, rng: _draw(LETTERS[label], rng),
        samples_per_class,
        test_share,
        seed,
        max_train,
        max_test,
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
