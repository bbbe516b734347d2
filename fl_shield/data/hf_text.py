"""Text data sets of the Hugging Face hub: SST-2, AG News, and any with a text and a label."""

from __future__ import annotations

from typing import Any

from fl_shield.data.messages import first_line
from fl_shield.data.task import Task
from fl_shield.data.text import Texts, text_task
from fl_shield.errors import DataError


def load(
    path: str,
    name: str | None = None,
    text_column: str = "text",
    label_column: str = "label",
    train_split: str = "train",
    test_split: str = "test",
    tokenizer: str | None = None,
    vocab_size: int = 6000,
    max_length: int = 48,
    max_train: int | None = None,
    max_test: int | None = None,
) -> Task:
    """Return a text data set of the hub, or of a local copy of it.

    Args:
        path: Hub name (`"stanfordnlp/sst2"`) or folder of a data set.
        name: Configuration of the data set, when it has several.
        text_column: Column of the texts.
        label_column: Column of the labels.
        train_split: Split to train on.
        test_split: Split to evaluate on; it must have labels.
        tokenizer: Hub name or folder of a tokenizer; None trains one on the training texts.
        vocab_size: Size of a tokenizer trained here.
        max_length: Tokens of a text.
        max_train: Limit of the training texts; None for all.
        max_test: Limit of the test texts; None for all.

    Raises:
        DataError: if the data set cannot be had or lacks the columns or splits.
    """
    import datasets

    datasets.disable_progress_bars()
    try:
        parts = [datasets.load_dataset(path, name, split=s) for s in (train_split, test_split)]
    except Exception as error:  # the hub client raises many kinds, from many libraries
        raise DataError(
            f"The data set {path!r} could not be loaded ({first_line(error)}). Without a "
            "network, use a local copy: data.path=DIR, or CSV files: data=text_csv data.path=DIR."
        ) from error
    for part in parts:
        for column in (text_column, label_column):
            if column not in part.column_names:
                raise DataError(
                    f"The data set {path!r} has no column {column!r}; it has "
                    f"{', '.join(part.column_names)}. Set data.text_column and data.label_column."
                )
    return text_task(
        path.rsplit("/", 1)[-1],
        *(_texts(part, text_column, label_column) for part in parts),
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        max_length=max_length,
        max_train=max_train,
        max_test=max_test,
        class_names=getattr(parts[0].features[label_column], "names", None),
    )


def _texts(part: Any, text_column: str, label_column: str) -> Texts:
    return Texts([str(text) for text in part[text_column]], list(part[label_column]))
