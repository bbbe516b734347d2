"""What all text loaders share: from texts and labels to a task of token ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fl_shield.data.cache import Entry, cached, splits_of, tensors_of
from fl_shield.data.sampling import limited
from fl_shield.data.task import Split, Task, TaskSpec
from fl_shield.data.tokenise import encode, load_tokenizer, train_tokenizer, wrap_tokenizer
from fl_shield.errors import DataError, expected

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

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
        class_names: Names of the labels 0, 1, …; None names the classes as the labels are.

    Raises:
        DataError: if a split is empty, a label is empty or a fraction, there are fewer than two
            classes, the test split has another label, or `max_length` is too small.
    """
    if max_length < MIN_LENGTH:
        raise DataError(expected("data.max_length", f"at least {MIN_LENGTH}", max_length))
    for part, kind in ((train, "training"), (test, "test")):
        if not part.texts:
            raise DataError(f"The {kind} split of {name!r} holds no texts. Add some.")
        _check_labels(part.labels, name)
    classes = _class_values(train.labels)
    if len(classes) < 2:
        raise DataError(
            expected(
                f"the labels of {name!r}",
                "of at least two classes",
                classes,
                "A classifier needs something to tell apart.",
            )
        )
    index = {label: position for position, label in enumerate(classes)}
    strange = sorted({str(label) for label in test.labels if label not in index})
    if strange:
        raise DataError(
            f"The test texts have labels that no training text has: {', '.join(strange[:5])}. "
            "Add training texts with them, or choose test texts that have labels."
        )
    labels = [torch.tensor([index[label] for label in part.labels]) for part in (train, test)]
    found = load_tokenizer(tokenizer) if tokenizer else None

    def build() -> Entry:
        made = found or train_tokenizer(train.texts, vocab_size)
        ids = [encode(made, part.texts, max_length) for part in (train, test)]
        splits = [Split(*pair) for pair in zip(ids, labels, strict=True)]
        return tensors_of(*splits), {"tokenizer": made.backend_tokenizer.to_str()}

    key = {
        "loader": "text",
        "texts": _digest(train, test),
        "tokenizer": _digest_text(found.backend_tokenizer.to_str()) if found else vocab_size,
        "max_length": max_length,
    }
    tensors, text = cached(key, build)
    used = found or _trained_tokenizer(text["tokenizer"])
    splits = splits_of(tensors)
    return Task(
        name=name,
        spec=TaskSpec("text", (max_length,), len(classes), len(used), int(str(used.pad_token_id))),
        train=limited(splits[0], max_train),
        test=limited(splits[1], max_test),
        classes=_names(classes, class_names),
        tokenizer=used,
    )


def _trained_tokenizer(text: str) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer

    return wrap_tokenizer(Tokenizer.from_str(text))


def _digest(*parts: Texts) -> str:
    return _digest_text(json.dumps([[list(p.texts), [str(x) for x in p.labels]] for p in parts]))


def _digest_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _names(classes: Sequence[object], class_names: Sequence[str] | None) -> tuple[str, ...]:
    if class_names is None:
        return tuple(str(label) for label in classes)
    return tuple(class_names[int(str(label))] for label in classes)


def _check_labels(labels: Sequence[object], name: str) -> None:
    if any(label is None or label == "" for label in labels):
        raise DataError(f"Some texts of {name!r} have an empty label. Every row needs one.")
    fraction = next((x for x in labels if isinstance(x, float) and not x.is_integer()), None)
    if fraction is not None:
        raise DataError(
            expected(
                f"the labels of {name!r}",
                "whole numbers or words",
                fraction,
                "Set data.label_column to the column of the classes.",
            )
        )


def _class_values(labels: Sequence[object]) -> list[object]:
    values = set(labels)
    if all(isinstance(value, int | float) for value in values):
        return sorted(values, key=lambda value: float(str(value)))
    return sorted(values, key=str)
