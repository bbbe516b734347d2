"""CSV files of the user's own: written here, read back; and every fault is named."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fl_shield.data.text_csv import load
from fl_shield.errors import DataError

pytest.importorskip("datasets")

GOOD = [f"a truly fine film number {i}" for i in range(10)]
BAD = [f"dull, slow and poor take {i}" for i in range(10)]
ROWS: list[tuple[object, object]] = [*((t, 1) for t in GOOD), *((t, 0) for t in BAD)]


@pytest.fixture(autouse=True)
def _own_datasets_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache / "datasets")


def write(
    file: Path, rows: list[tuple[object, object]], header: tuple[str, str] = ("text", "label")
) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *rows])
    return file


def folder(root: Path, rows: list[tuple[object, object]] = ROWS) -> Path:
    write(root / "train.csv", rows)
    write(root / "test.csv", rows[::5])
    return root


def test_texts_become_padded_ids_that_decode_to_themselves(tmp_path: Path) -> None:
    task = load(str(folder(tmp_path)), max_length=16)
    tokenizer = task.tokenizer
    assert tokenizer is not None
    ids = task.train.inputs
    assert (ids.shape, ids.dtype) == ((20, 16), torch.int64)
    assert task.spec.pad_id == 0
    assert task.spec.vocab_size == len(tokenizer) > int(ids.max())
    assert torch.all(ids[:, 0] == tokenizer.convert_tokens_to_ids("[CLS]"))  # type: ignore[call-overload]
    decoded = [tokenizer.decode(row, skip_special_tokens=True) for row in ids]
    assert decoded[3] == GOOD[3]
    assert task.train.labels.tolist() == [1] * 10 + [0] * 10
    assert task.classes == ("0", "1")


def test_long_texts_are_cut(tmp_path: Path) -> None:
    task = load(str(folder(tmp_path, [("word " * 50, 0), ("other " * 50, 1)] * 5)), max_length=8)
    assert task.train.inputs.shape[1] == 8
    assert torch.all(task.train.inputs != task.spec.pad_id)


def test_word_labels_are_numbered_in_alphabetical_order(tmp_path: Path) -> None:
    rows = [(text, "pos" if label else "neg") for text, label in ROWS]
    task = load(str(folder(tmp_path, rows)))  # type: ignore[arg-type]
    assert task.classes == ("neg", "pos")
    assert task.train.labels.tolist() == [1] * 10 + [0] * 10


def test_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    rows = [(f"text of {n}", n) for n in (10, 9, 2)] * 4
    task = load(str(folder(tmp_path, rows)))  # type: ignore[arg-type]
    assert task.classes == ("2", "9", "10")
    assert task.train.labels[:3].tolist() == [2, 1, 0]


def test_validation_file_serves_without_a_test_file(tmp_path: Path) -> None:
    (folder(tmp_path) / "test.csv").rename(tmp_path / "validation.csv")
    assert len(load(str(tmp_path)).test) == 4


def test_single_file_is_split_by_class(tmp_path: Path) -> None:
    task = load(str(write(tmp_path / "all.csv", ROWS)), test_share=0.2)
    assert torch.bincount(task.train.labels).tolist() == [8, 8]
    assert torch.bincount(task.test.labels).tolist() == [2, 2]
    assert task.name == "all"


def test_words_that_look_like_missing_values_are_texts(tmp_path: Path) -> None:
    rows: list[tuple[object, object]] = [*ROWS, ("null", 0), ("NA", 1)]
    task = load(str(folder(tmp_path, rows)))
    assert task.tokenizer is not None
    assert task.tokenizer.decode(task.train.inputs[20], skip_special_tokens=True) == "null"


def test_other_columns_and_odd_folder_names_serve(tmp_path: Path) -> None:
    place = tmp_path / "a [b]*"
    for name in ("train", "test"):
        write(place / f"{name}.csv", ROWS, ("review", "stars"))
    assert len(load(str(place), text_column="review", label_column="stars").train) == 20


def test_every_process_has_the_same_ids(tmp_path: Path, cache: Path) -> None:
    folder(tmp_path)
    script = (
        "import sys; from fl_shield.data.text_csv import load; "
        "print('ids', load(sys.argv[1]).train.inputs.tolist())"
    )
    seen = set()
    for run in ("one", "two", "three"):
        environment = {
            "PATH": "",
            "HOME": str(cache),
            "FL_SHIELD_CACHE": str(cache / run),
            "PYTHONHASHSEED": "random",
            "HF_DATASETS_CACHE": str(cache / "datasets"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        command = [sys.executable, "-c", script, str(tmp_path)]
        out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        seen.add(next(line for line in out.stdout.splitlines() if line.startswith("ids")))
    assert len(seen) == 1


def test_cached_tokenizer_is_the_trained_one(tmp_path: Path) -> None:
    first, second = (load(str(folder(tmp_path))) for _ in range(2))
    assert first.tokenizer is not None
    assert second.tokenizer is not None
    assert first.tokenizer.get_vocab() == second.tokenizer.get_vocab()
    sentence = "an unseen, fine sentence"
    assert first.tokenizer(sentence)["input_ids"] == second.tokenizer(sentence)["input_ids"]
    assert torch.equal(first.train.inputs, second.train.inputs)
    assert second.tokenizer.pad_token_id == 0


def test_tokenizer_of_a_folder_is_used(tmp_path: Path) -> None:
    first = load(str(folder(tmp_path / "data")))
    assert first.tokenizer is not None
    first.tokenizer.save_pretrained(tmp_path / "tokenizer")
    second = load(str(tmp_path / "data"), tokenizer=str(tmp_path / "tokenizer"))
    assert torch.equal(first.train.inputs, second.train.inputs)


def test_missing_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="No tokenizer could be loaded from the folder"):
        load(str(folder(tmp_path)), tokenizer=str(tmp_path / "empty"))


def test_no_path_is_named() -> None:
    with pytest.raises(DataError, match=r"No CSV was given.*data\.path=DIR"):
        load()


def test_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path.*nowhere"):
        load(str(tmp_path / "nowhere"))


def test_folder_without_the_files_says_what_it_holds(tmp_path: Path) -> None:
    write(tmp_path / "reviews.csv", ROWS)
    with pytest.raises(DataError, match=r"train\.csv and test\.csv.*It holds: reviews\.csv"):
        load(str(tmp_path))


@pytest.mark.parametrize("setting", ["text_column", "label_column"])
def test_missing_column_is_named(tmp_path: Path, setting: str) -> None:
    with pytest.raises(DataError, match="no column 'x'; it has text, label"):
        load(str(folder(tmp_path)), **{setting: "x"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", 0.5), ("b", 1.0), ("c", 0.5)], r"whole numbers or words, got 0\.5"),
        ([("a", 1), ("b", 1), ("c", 1)], r"at least two classes, got \[1\]"),
        ([("a", "x"), ("b", ""), ("c", "y")], "empty label"),
        ([("a", 0), ("b", ""), ("c", 1)], "empty label"),
        ([], "holds no texts|not a readable CSV"),
    ],
    ids=["fractions", "one class", "empty word", "empty number", "no rows"],
)
def test_bad_labels_are_named(
    tmp_path: Path, rows: list[tuple[object, object]], message: str
) -> None:
    write(tmp_path / "train.csv", rows)
    write(tmp_path / "test.csv", rows)
    with pytest.raises(DataError, match=message):
        load(str(tmp_path))


def test_label_only_the_test_file_knows_is_named(tmp_path: Path) -> None:
    folder(tmp_path)
    write(tmp_path / "test.csv", [("new", 7)])
    with pytest.raises(DataError, match="labels that no training text has: 7"):
        load(str(tmp_path))


def test_broken_csv_is_named_with_the_cause(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "train.csv").write_text("text,label\na,1\nb,2,3,4\n")
    with pytest.raises(DataError, match=r"train\.csv is not a readable CSV.*line 3"):
        load(str(tmp_path))


@pytest.mark.parametrize("share", [0.0, 1.0, 3.0])
def test_share_outside_its_range_is_named(tmp_path: Path, share: float) -> None:
    with pytest.raises(DataError, match=rf"test_share.*got {share}"):
        load(str(write(tmp_path / "all.csv", ROWS)), test_share=share)


def test_sizes_out_of_range_are_named(tmp_path: Path) -> None:
    folder(tmp_path)
    with pytest.raises(DataError, match=r"max_length.*at least 8, got 4"):
        load(str(tmp_path), max_length=4)
    with pytest.raises(DataError, match=r"vocab_size.*characters of the texts, got 10"):
        load(str(tmp_path), vocab_size=10)
