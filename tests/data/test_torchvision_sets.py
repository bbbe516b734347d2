"""torchvision's data sets, from files of its format written here; no test uses the network."""

import struct
from pathlib import Path

import numpy as np
import pytest

from fl_shield.data.torchvision_sets import load
from fl_shield.errors import DataError


def _idx(file: Path, array: np.ndarray) -> None:
    """Write the IDX format: a magic number that ends in the number of axes, then their lengths."""
    header = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
    file.write_bytes(header + array.tobytes())


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_files_on_disk_are_read_without_a_download(tmp_path: Path, name: str, folder: str) -> None:
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    images = {"train": rng.integers(0, 256, (20, 28, 28), dtype=np.uint8)}
    images["t10k"] = rng.integers(0, 256, (10, 28, 28), dtype=np.uint8)
    for part, pixels in images.items():
        _idx(raw / f"{part}-images-idx3-ubyte", pixels)
        _idx(raw / f"{part}-labels-idx1-ubyte", np.arange(len(pixels), dtype=np.uint8) % 10)
    task = load(name, root=str(tmp_path), download=False)
    assert task.spec.input_shape == (1, 28, 28)
    assert np.array_equal(task.train.inputs[:, 0].numpy(), images["train"])
    assert task.test.labels.tolist() == list(range(10))
    assert len(task.classes) == 10
    assert len(load(name, root=str(tmp_path), max_train=10).train) == 10


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_absent_files_name_the_ways_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"data\.root=DIR.*data=image_folder data\.root=DIR"):
        load(name, root=str(tmp_path), download=False)


def test_unknown_set_is_named_with_the_nearest() -> None:
    with pytest.raises(DataError, match="Did you mean 'cifar10'"):
        load("cifar")
