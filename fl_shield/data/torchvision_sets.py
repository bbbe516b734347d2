"""Image data sets that torchvision knows by name: MNIST, Fashion-MNIST, CIFAR-10."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fl_shield.data.messages import first_line
from fl_shield.data.sampling import limited
from fl_shield.data.task import Split, Task, TaskSpec
from fl_shield.errors import DataError, unknown

SETS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10"}
"""Our name to torchvision's class."""


def load(
    name: str,
    root: str = "data",
    download: bool = True,
    max_train: int | None = None,
    max_test: int | None = None,
) -> Task:
    """Return a torchvision data set as a task.

    Args:
        name: `"mnist"`, `"fashion_mnist"` or `"cifar10"`.
        root: Folder where torchvision keeps, or puts, its files.
        download: Fetch the data set when `root` does not hold it.
        max_train: Limit of the training images; None for all.
        max_test: Limit of the test images; None for all.

    Raises:
        DataError: if the data set is unknown, or is neither in `root` nor to be downloaded.
    """
    import torchvision

    if name not in SETS:
        raise DataError(unknown("data set", name, SETS))
    dataset = getattr(torchvision.datasets, SETS[name])
    folder = str(Path(root).expanduser())
    try:
        parts = [dataset(folder, train=train, download=download) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"The data set {name!r} is not in {folder!r} and could not be downloaded "
            f"({first_line(error)}). Put torchvision's files there (data.root=DIR), or "
            "use a folder of images: data=image_folder data.root=DIR."
        ) from error
    train, test = (_split(part) for part in parts)
    classes = tuple(str(label) for label in parts[0].classes)
    return Task(
        name=name,
        spec=TaskSpec("image", tuple(train.inputs.shape[1:]), len(classes)),
        train=limited(train, max_train),
        test=limited(test, max_test),
        classes=classes,
    )


def _split(dataset: Any) -> Split:
    images = torch.from_numpy(np.asarray(dataset.data))
    images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)
    labels = torch.as_tensor(np.asarray(dataset.targets), dtype=torch.int64)
    return Split(images.contiguous(), labels)
