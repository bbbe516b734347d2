"""The handwritten digits inside scikit-learn: 1,797 real 8x8 images, on every machine."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from fl_shield.data.sampling import limited, stratified_split
from fl_shield.data.task import Split, Task, TaskSpec


def load(
    test_share: float = 0.3, max_train: int | None = None, max_test: int | None = None
) -> Task:
    """Return the digits task (UCI optical recognition of handwritten digits, test part).

    Args:
        test_share: Share of the images held out for evaluation.
        max_train: Limit of the training images; None for all.
        max_test: Limit of the test images; None for all.
    """
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).unsqueeze(1) * (255.0 / 16.0)  # 17 grey levels
    whole = Split(images.round().to(torch.uint8), torch.from_numpy(bunch.target).to(torch.int64))
    train, test = stratified_split(whole, test_share)
    return Task(
        name="digits",
        spec=TaskSpec("image", (1, 8, 8), 10),
        train=limited(train, max_train),
        test=limited(test, max_test),
        classes=tuple(str(digit) for digit in range(10)),
    )
