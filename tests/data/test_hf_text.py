"""Data sets of the hub, from local copies written here; no test uses the network."""

from pathlib import Path

import pytest

from fl_shield.data.hf_text import load
from fl_shield.errors import DataError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache / "datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    for split, labels in (("train", [1, 0] * 6), ("validation", [0, 1]), ("test", [-1, -1])):
        rows = {"sentence": [f"{split} text {i}" for i in range(len(labels))], "label": labels}
        data = datasets.Dataset.from_dict(rows, features=features)
        data.to_parquet(tmp_path / "copy" / "data" / f"{split}-00000-of-00001.parquet")
    return tmp_path / "copy"


def test_local_copy_gives_class_names_and_labels(local: Path) -> None:
    task = load(str(local), text_column="sentence", test_split="validation")
    assert (task.classes, task.name) == (("bad", "good"), "copy")
    assert task.train.labels.tolist() == [1, 0] * 6
    assert task.test.labels.tolist() == [0, 1]


def test_split_without_labels_is_named(local: Path) -> None:
    with pytest.raises(DataError, match="labels that no training text has: -1"):
        load(str(local), text_column="sentence", test_split="test")


def test_missing_column_is_named(local: Path) -> None:
    with pytest.raises(DataError, match="no column 'text'; it has sentence, label"):
        load(str(local), test_split="validation")


def test_missing_split_is_named(local: Path) -> None:
    with pytest.raises(DataError, match=r"could not be loaded.*holdout"):
        load(str(local), text_column="sentence", test_split="holdout")


def test_without_a_network_the_way_out_is_named() -> None:
    with pytest.raises(DataError, match=r"could not be loaded.*data=text_csv data\.path=DIR"):
        load("stanfordnlp/no_such_copy", text_column="sentence")
