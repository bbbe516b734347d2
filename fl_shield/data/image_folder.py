"""Any folder of images: one sub-folder a class, as `torchvision.datasets.ImageFolder` reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fl_shield.data.cache import cached_splits, fingerprint
from fl_shield.data.sampling import limited, stratified_split
from fl_shield.data.task import Split, Task, TaskSpec
from fl_shield.errors import DataError, expected

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "val", "valid", "validation")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")

DEEP_MODES = ("I;16", "I;16B", "I")
"""Pillow's modes of grey images with 16 bits a pixel."""

GREY_MODES = ("L", "1", "LA", *DEEP_MODES)


def load(
    root: str | None = None,
    image_size: int | None = None,
    grey: bool | None = None,
    test_share: float = 0.2,
    max_train: int | None = None,
    max_test: int | None = None,
) -> Task:
    """Return the task of a folder of images.

    Args:
        root: Folder with `train/` and `test/` (or `val/`), each holding one folder a class; or a
            folder that holds the class folders itself, which is then split.
        image_size: Height and width in pixels; None takes those of the first image.
        grey: Read as grey images; None decides by the first image of each class.
        test_share: Share held out when `root` has no test folder.
        max_train: Limit of the training images; None for all.
        max_test: Limit of the test images; None for all.

    Raises:
        DataError: if the folder is missing, has fewer than two classes, has an empty class, or
            holds a file that is no readable image.
    """
    if image_size is not None and image_size < 1:
        raise DataError(expected("data.image_size", "1 pixel or more, or null", image_size))
    folder = _checked_root(root)
    train_folder = _child(folder, TRAIN_NAMES)
    test_folder = _child(folder, TEST_NAMES)
    if (train_folder is None) != (test_folder is None):
        raise DataError(
            f"The folder {folder} holds {'train' if train_folder else 'test'} images only. Give it "
            "both train/ and test/, or class folders directly, to be split."
        )
    sources = [f for f in (train_folder, test_folder) if f is not None] or [folder]
    files = [file for source in sources for file in _images(source)]
    if not files:
        raise DataError(
            f"The folder {folder} holds no images ({', '.join(IMAGE_SUFFIXES[:4])}, …). "
            "Put them into one sub-folder a class."
        )
    size, channels = _form(files, image_size, grey)

    def build() -> tuple[Split, Split, tuple[str, ...]]:
        parts = [_read_folder(source, size, channels) for source in sources]
        classes = parts[0][1]
        if len(parts) == 2 and parts[1][1] != classes:
            raise DataError(
                f"The class folders of {sources[0].name}/ and {sources[1].name}/ in {folder} "
                f"differ: {', '.join(sorted(set(classes) ^ set(parts[1][1])))}."
            )
        if len(parts) == 2:
            return parts[0][0], parts[1][0], classes
        return (*stratified_split(parts[0][0], test_share), classes)

    key = {
        "loader": "image_folder",
        "root": str(folder.resolve()),
        "size": size,
        "channels": channels,
        "test_share": test_share,
        "files": fingerprint(files),
        "folders": [f"{s.name}/{d.name}" for s in sources for d in sorted(s.iterdir())],
    }
    train, test, classes = cached_splits(key, build)
    return Task(
        name=folder.name,
        spec=TaskSpec("image", (channels, *size), len(classes)),
        train=limited(train, max_train),
        test=limited(test, max_test),
        classes=classes,
    )


def _checked_root(root: str | None) -> Path:
    if not root:
        raise DataError("No image folder was given. Add data.root=DIR with one folder a class.")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DataError(
            expected("data.root", "a folder of images, one sub-folder a class", str(root))
        )
    return folder


def _child(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _images(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)


def _form(
    files: Sequence[Path], image_size: int | None, grey: bool | None
) -> tuple[tuple[int, int], int]:
    """Return (height, width) and channels, from the first image of each class."""
    first_of = {file.parent: file for file in reversed(files)}
    images = [_open(file) for _, file in sorted(first_of.items())]
    size = (image_size, image_size) if image_size else (images[0].height, images[0].width)
    is_grey = all(image.mode in GREY_MODES for image in images) if grey is None else grey
    return size, 1 if is_grey else 3


def _open(file: str | Path) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(file)
        image.load()
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"The file {file} is not a readable image ({error}).") from error
    return image


def _read_folder(
    folder: Path, size: tuple[int, int], channels: int
) -> tuple[Split, tuple[str, ...]]:
    from PIL import Image
    from torchvision.datasets import ImageFolder

    def pixels(file: str) -> Tensor:
        image = _open(file)
        if image.mode in DEEP_MODES:  # Pillow would clip 16 bits at 255 instead of scaling
            image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
        image = image.convert("L" if channels == 1 else "RGB")
        if (image.height, image.width) != size:
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        array = np.asarray(image, dtype=np.uint8).reshape(*size, channels)
        return torch.from_numpy(array.copy()).permute(2, 0, 1)

    try:
        data = ImageFolder(str(folder), loader=pixels)
    except FileNotFoundError as error:
        raise DataError(_without_images(folder)) from error
    if len(data.classes) < 2:
        raise DataError(
            f"The folder {folder} holds a single class ({data.classes[0]}). "
            "A classifier needs two or more, one sub-folder each."
        )
    images = torch.stack([data[index][0] for index in range(len(data))])
    return Split(images, torch.tensor(data.targets, dtype=torch.int64)), tuple(data.classes)


def _without_images(folder: Path) -> str:
    children = sorted(child for child in folder.iterdir() if child.is_dir())
    empty = next((child.name for child in children if not _images(child)), None)
    if empty is None:
        return f"The folder {folder} has no class folders. Put images into one sub-folder a class."
    return f"The class folder {empty!r} in {folder} holds no images. Add some, or remove it."
