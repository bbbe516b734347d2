"""What `fl-shield filter` is given: clean samples, samples to judge, and the model's weights.

Samples come as a folder of images, or as an `.npz` or safetensors file with `inputs` and, where
there are any, `labels`. Nothing is unpickled.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fl_shield.data.image_folder import IMAGE_SUFFIXES
from fl_shield.data.task import model_inputs
from fl_shield.errors import DataError, expected
from fl_shield.models.state import load_arrays


@dataclass(frozen=True)
class NamedSamples:
    """Samples with names to show.

    Attributes:
        inputs: In the form models take: float images in [0, 1], or int64 token ids.
        labels: `(samples,)` int64, None where there are none.
        names: One for each sample: a file's path in its folder, or a row number.
    """

    inputs: Tensor
    labels: Tensor | None
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


def read_samples(option: str, path: str | Path) -> NamedSamples:
    """Return the samples of a folder or file.

    Args:
        option: Name of the option that named it, for messages.
        path: A folder of images, an `.npz` file or a safetensors file.

    Raises:
        DataError: in one sentence, if it is missing, damaged, empty or of another form.
    """
    source = Path(path).expanduser()
    if source.is_dir():
        return _read_folder(option, source)
    if not source.is_file():
        raise DataError(
            expected(option, "a folder of images, or an .npz or .safetensors file", str(source))
        )
    if source.suffix == ".npz":
        return _from_tensors(option, source, _read_npz(option, source))
    try:
        return _from_tensors(option, source, load_file(source))
    except (OSError, SafetensorError) as error:
        raise DataError(
            expected(option, "an .npz or safetensors file", str(source), f"{_line(error)}.")
        ) from error


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load the weights of a safetensors file into a model, in place.

    Raises:
        DataError: if the file is missing or damaged.
        ModelError: if the weights are not the model's.
    """
    try:
        state = load_file(Path(path).expanduser())
    except (OSError, SafetensorError) as error:
        raise DataError(
            expected("--weights", "a safetensors file", str(path), f"{_line(error)}.")
        ) from error
    load_arrays(model, {name: tensor.numpy() for name, tensor in state.items()})


def _read_npz(option: str, file: Path) -> dict[str, Tensor]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: torch.from_numpy(np.array(archive[name])) for name in archive.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(
            expected(option, "an .npz file of plain arrays", str(file), f"{_line(error)}.")
        ) from error


def _from_tensors(option: str, file: Path, tensors: dict[str, Tensor]) -> NamedSamples:
    inputs, labels = tensors.get("inputs"), tensors.get("labels")
    if inputs is None:
        raise DataError(
            f"{option}: {file} must hold `inputs`, and may hold `labels`; it holds "
            f"{', '.join(sorted(tensors)) or 'nothing'}."
        )
    is_image = inputs.dim() == 4
    is_text = inputs.dim() == 2 and not inputs.is_floating_point()
    if not (is_image or is_text) or not len(inputs):
        raise DataError(
            expected(
                f"{option} inputs",
                "images (samples, channels, height, width) or token ids (samples, length)",
                f"{tuple(inputs.shape)} of {str(inputs.dtype).removeprefix('torch.')}",
            )
        )
    if labels is not None and labels.shape != inputs.shape[:1]:
        raise DataError(
            expected(f"{option} labels", f"{len(inputs)} in number", tuple(labels.shape))
        )
    if is_image:
        inputs = model_inputs(inputs).to(torch.float32)
        if not bool(torch.isfinite(inputs).all()) or inputs.min() < 0 or inputs.max() > 1:
            raise DataError(expected(f"{option} images", "bytes, or floats in [0, 1]", "others"))
    else:
        inputs = inputs.to(torch.int64)
    names = tuple(str(row) for row in range(len(inputs)))
    return NamedSamples(inputs, None if labels is None else labels.to(torch.int64), names)


def _read_folder(option: str, folder: Path) -> NamedSamples:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise DataError(f"{option}: the folder {folder} holds no images.")
    images = [_read_image(option, file) for file in files]
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise DataError(
            f"{option}: the images of {folder} differ in size or colour ({sorted(shapes)[:2]}, …). "
            "Give them as the model takes them."
        )
    inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    names = tuple(str(file.relative_to(folder)) for file in files)
    classes = sorted({Path(name).parent.as_posix() for name in names})
    # One sub-folder a class, as everywhere: without sub-folders there are no labels.
    labels = (
        torch.tensor([classes.index(Path(name).parent.as_posix()) for name in names])
        if len(classes) > 1 and "." not in classes
        else None
    )
    return NamedSamples(model_inputs(inputs), labels, names)


def _read_image(option: str, file: Path) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            is_grey = image.mode in ("L", "1", "LA")
            pixels = np.asarray(image.convert("L" if is_grey else "RGB"), dtype=np.uint8)
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{option}: {file} is no readable image ({_line(error)}).") from error
    return pixels[..., None] if is_grey else pixels


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
