"""What all text loaders share: from texts and labels to a task of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fl_shield.data.sampling import limited
from fl_shield.data.task import Split, Task, TaskSpec
from fl_shield.data.tokenise import encode, load_tokenizer, train_tokenizer
from fl_shield.errors import DataError, expected

MIN_LENGTH = 8
"""Fewer tokens hold neither a sentence nor a trigger."""


@dataclass(frozen=True)
class Texts:
    """Texts of one split with their labels as they stand in the file."""

    texts: Sequence[str]
    labels: Sequence[object]


def text_task(
    name: str,
    train: Texts,
    test: Texts,
    *,
    tokenizer: str | None,
    vocab_size: int,
    max_length: int,
    max_train: int | None,
    max_test: int | None,
    class_names: Sequence[str] | None = None,
) -> Task:
    """Return the task of two splits of texts.

    Args:
        name: Name of the data set.
        train: Training texts.
        test: Test texts.
        tokenizer: Hub name or folder of a tokenizer; None trains one on the training texts.
        vocab_size: Size of a tokenizer trained here.
        max_length: Tokens of a text; longer ones are cut, shorter ones padded.
        max_train: Limit of the training texts; None for all.
        max_test: Limit of the test texts; None for all.
        class_names: Names of the classes 0, 1, …; None reads them from the training labels.

    Raises:
        DataError: if there are fewer than two classes, a label only the test split knows, or if
            `max_length` is too small.
    """
    if max_length < MIN_LENGTH:
        raise DataError(expected("data.max_length", f"at least {MIN_LENGTH}", max_length))
    classes = _class_values(train.labels)
    if len(classes) < 2:
        raise DataError(expected("the labels", "of at least two classes", classes))
    index = {label: position for position, label in enumerate(classes)}
    strange = sorted({str(label) for label in test.labels if label not in index})
    if strange:
        raise DataError(
            f"The test texts have labels that no training text has: {', '.join(strange[:5])}."
        )
    found = load_tokenizer(tokenizer) if tokenizer else train_tokenizer(train.texts, vocab_size)
    splits = [
        Split(
            encode(found, part.texts, max_length),
            torch.tensor([index[label] for label in part.labels], dtype=torch.int64),
        )
        for part in (train, test)
    ]
    names = tuple(class_names) if class_names else tuple(str(label) for label in classes)
    pad_id = int(found.pad_token_id)
    return Task(
        name=name,
        spec=TaskSpec("text", (max_length,), len(classes), len(found), pad_id),
        train=limited(splits[0], max_train),
        test=limited(splits[1], max_test),
        classes=names,
        tokenizer=found,
    )


def _class_values(labels: Sequence[object]) -> list[object]:
    values = set(labels)
    if any(value is None or value == "" for value in values):
        raise DataError("Some texts have an empty label. Every row needs one.")
    if all(isinstance(value, int) for value in values):
        return sorted(values, key=lambda value: int(str(value)))
    return sorted(values, key=str)
