"""Folders of images: real files made here, read back pixel for pixel; and every fault is named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fl_shield.data import image_folder
from fl_shield.data.image_folder import load
from fl_shield.errors import DataError


def _image(seed: int, size: tuple[int, int], channels: int) -> np.ndarray:
    shape = size if channels == 1 else (*size, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def make_folder(
    root: Path,
    splits: tuple[str, ...] = ("train", "test"),
    classes: tuple[str, ...] = ("cat", "dog"),
    per_class: int = 3,
    size: tuple[int, int] = (6, 5),
    channels: int = 1,
) -> Path:
    for s, split in enumerate(splits):
        for c, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(per_class):
                pixels = _image(100 * s + 10 * c + i, size, channels)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("test_name", ["test", "val", "validation"])
def test_pixels_and_labels_are_those_of_the_files(
    tmp_path: Path, channels: int, test_name: str
) -> None:
    task = load(str(make_folder(tmp_path, ("train", test_name), channels=channels)))
    assert task.spec.input_shape == (channels, 6, 5)
    assert (task.classes, task.name) == (("cat", "dog"), tmp_path.name)
    assert task.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for row, seed in enumerate((100, 101, 102, 110, 111, 112)):
        truth = _image(seed, (6, 5), channels).reshape(6, 5, channels).transpose(2, 0, 1)
        assert np.array_equal(task.test.inputs[row].numpy(), truth)


def test_single_folder_is_split_by_class(tmp_path: Path) -> None:
    task = load(str(make_folder(tmp_path, ("",), per_class=10)), test_share=0.3)
    assert torch.bincount(task.train.labels).tolist() == [7, 7]
    assert torch.bincount(task.test.labels).tolist() == [3, 3]


def test_images_of_other_sizes_are_resized(tmp_path: Path) -> None:
    make_folder(tmp_path)
    white = Image.fromarray(np.full((40, 20), 255, dtype=np.uint8))
    white.save(tmp_path / "train" / "dog" / "9.png")
    task = load(str(tmp_path))
    assert task.spec.input_shape == (1, 6, 5)
    assert int(task.train.inputs[-1].min()) == 255
    assert load(str(tmp_path), image_size=8).spec.input_shape == (1, 8, 8)


def test_one_colour_class_makes_all_colour_unless_grey_is_asked(tmp_path: Path) -> None:
    make_folder(tmp_path)
    for file in (tmp_path / "train" / "dog").iterdir():
        Image.fromarray(_image(0, (6, 5), 3)).save(file)
    assert load(str(tmp_path)).spec.input_shape[0] == 3
    assert load(str(tmp_path), grey=True).spec.input_shape[0] == 1


def test_sixteen_bit_images_are_scaled_not_clipped(tmp_path: Path) -> None:
    make_folder(tmp_path)
    deep = np.full((6, 5), 128 * 257, dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "train" / "dog" / "9.png")
    assert torch.all(load(str(tmp_path)).train.inputs[-1] == 128)


def test_second_load_does_not_decode_but_a_changed_file_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path)
    decoded: list[Path] = []
    read = image_folder._read_folder

    def counted(folder: Path, *args: object) -> object:
        decoded.append(folder)
        return read(folder, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(image_folder, "_read_folder", counted)
    first, second = load(str(tmp_path)), load(str(tmp_path))
    assert len(decoded) == 2  # train and test, once
    assert torch.equal(first.train.inputs, second.train.inputs)
    Image.fromarray(np.zeros((6, 5), dtype=np.uint8)).save(tmp_path / "train" / "cat" / "0.png")
    assert int(load(str(tmp_path)).train.inputs[0].max()) == 0


def test_no_root_is_named() -> None:
    with pytest.raises(DataError, match=r"No image folder was given.*data\.root=DIR"):
        load()


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root.*nowhere"):
        load(str(tmp_path / "nowhere"))


def test_folder_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        load(str(tmp_path))


def test_images_outside_class_folders_are_named(tmp_path: Path) -> None:
    Image.fromarray(_image(0, (6, 5), 1)).save(tmp_path / "0.png")
    with pytest.raises(DataError, match="no class folders"):
        load(str(tmp_path))


def test_empty_class_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path)
    load(str(tmp_path))  # fills the cache, which must not hide the new folder
    (tmp_path / "train" / "eel").mkdir()
    with pytest.raises(DataError, match=r"class folder 'eel' in .* holds no images"):
        load(str(tmp_path))


def test_single_class_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path, classes=("cat",))
    with pytest.raises(DataError, match=r"holds a single class \(cat\)"):
        load(str(tmp_path))


def test_unreadable_image_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "train" / "dog" / "1.png").write_bytes(b"not a png")
    with pytest.raises(DataError, match=r"1\.png is not a readable image"):
        load(str(tmp_path))


def test_truncated_image_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path, size=(64, 64))
    file = tmp_path / "test" / "dog" / "2.png"
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"2\.png is not a readable image"):
        load(str(tmp_path))


def test_classes_that_differ_between_splits_are_named(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "wolf")
    with pytest.raises(DataError, match="differ: dog, wolf"):
        load(str(tmp_path))


def test_half_a_split_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path, ("train",))
    with pytest.raises(DataError, match="holds train images only"):
        load(str(tmp_path))


@pytest.mark.parametrize("size", [0, -4])
def test_image_size_must_be_positive(tmp_path: Path, size: int) -> None:
    with pytest.raises(DataError, match=rf"data\.image_size.*got {size}"):
        load(str(make_folder(tmp_path)), image_size=size)
