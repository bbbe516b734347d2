"""Texts from CSV files of the user's own, read with Hugging Face `datasets`."""

from __future__ import annotations

from glob import escape
from pathlib import Path

from fl_shield.data.messages import first_line
from fl_shield.data.sampling import SPLIT_SEED
from fl_shield.data.task import Task
from fl_shield.data.text import Texts, text_task
from fl_shield.errors import DataError, expected


def load(
    path: str | None = None,
    text_column: str = "text",
    label_column: str = "label",
    test_share: float = 0.2,
    tokenizer: str | None = None,
    vocab_size: int = 6000,
    max_length: int = 48,
    max_train: int | None = None,
    max_test: int | None = None,
) -> Task:
    """Return the task of one or two CSV files.

    Args:
        path: A folder with `train.csv` and `test.csv` (or `validation.csv`), or one CSV file,
            which is then split.
        text_column: Column of the texts.
        label_column: Column of the labels, numbers or words.
        test_share: Share held out when there is a single file.
        tokenizer: Hub name or folder of a tokenizer; None trains one on the training texts.
        vocab_size: Size of a tokenizer trained here.
        max_length: Tokens of a text.
        max_train: Limit of the training texts; None for all.
        max_test: Limit of the test texts; None for all.

    Raises:
        DataError: if files or columns are missing, or the labels are no labels.
    """
    if not path:
        raise DataError("No CSV was given. Add data.path=DIR (with train.csv, test.csv) or a file.")
    place = Path(path).expanduser()
    if place.is_dir():
        parts = [_read(file, text_column, label_column) for file in _files(place)]
    elif place.is_file():
        whole = _read(place, text_column, label_column)
        parts = _split(whole, test_share)
    else:
        raise DataError(
            expected("data.path", "a CSV file or a folder with train.csv and test.csv", path)
        )
    return text_task(
        place.resolve().stem,
        *parts,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        max_length=max_length,
        max_train=max_train,
        max_test=max_test,
    )


def _files(folder: Path) -> tuple[Path, Path]:
    files = [folder / name for name in ("test.csv", "validation.csv", "val.csv")]
    test = next((file for file in files if file.is_file()), None)
    if not (folder / "train.csv").is_file() or test is None:
        held = sorted(file.name for file in folder.iterdir())[:6]
        raise DataError(
            expected(
                "data.path",
                "a folder with train.csv and test.csv (or validation.csv)",
                str(folder),
                f"It holds: {', '.join(held) or 'nothing'}.",
            )
        )
    return folder / "train.csv", test


def _read(file: Path, text_column: str, label_column: str) -> Texts:
    import datasets

    datasets.disable_progress_bars()
    try:
        # Only an empty cell is missing: "null" and "NA" are words that texts may consist of.
        table = datasets.load_dataset(
            "csv",
            data_files=escape(str(file.resolve())),
            split="train",
            keep_default_na=False,
        )
    except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
        raise DataError(f"The file {file} is not a readable CSV ({first_line(error)}).") from error
    for column in (text_column, label_column):
        if column not in table.column_names:
            raise DataError(
                f"The file {file} has no column {column!r}; it has "
                f"{', '.join(table.column_names)}. Set data.text_column and data.label_column."
            )
    texts = ["" if text is None else str(text) for text in table[text_column]]
    return Texts(texts, list(table[label_column]))


def _split(whole: Texts, test_share: float) -> list[Texts]:
    from sklearn.model_selection import train_test_split

    if not 0 < test_share < 1:
        raise DataError(expected("data.test_share", "between 0 and 1", test_share, "Set 0.2."))
    try:
        parts = train_test_split(
            list(whole.texts),
            list(whole.labels),
            test_size=test_share,
            stratify=[str(label) for label in whole.labels],
            random_state=SPLIT_SEED,
        )
    except ValueError as error:
        raise DataError(
            f"The {len(whole.texts)} texts cannot be split into training and test: "
            f"{first_line(error)}. Give a folder with train.csv and test.csv, or more texts."
        ) from error
    return [Texts(parts[0], parts[2]), Texts(parts[1], parts[3])]
