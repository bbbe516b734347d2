"""Loaders and models on real public data, where the machine has it (`FL_SHIELD_DATA`)."""

import os
from pathlib import Path

import pytest
import torch

from fl_shield.data import image_folder, text_csv
from fl_shield.data.task import Task, model_inputs
from fl_shield.models.mnist_cnn import MnistCnn
from fl_shield.models.text_cnn import TextCnn

DATA = Path(os.environ.get("FL_SHIELD_DATA", Path(__file__).parents[3] / "shared" / "data"))

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="FL_SHIELD_DATA names no folder")


def _accuracy_after(model: torch.nn.Module, task: Task, epochs: int) -> float:
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    inputs, labels = model_inputs(task.train.inputs), task.train.labels
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(32):  # type: ignore[no-untyped-call]
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    model.eval()
    with torch.no_grad():
        right = model(model_inputs(task.test.inputs)).argmax(dim=1) == task.test.labels
    return float(right.float().mean())


@pytest.mark.skipif(not (DATA / "mnist").is_dir(), reason="no mnist folder")
def test_mnist_folder_teaches_the_badnets_cnn() -> None:
    task = image_folder.load(str(DATA / "mnist"), max_train=1500, max_test=500)
    assert (task.spec.input_shape, task.spec.num_classes) == ((1, 28, 28), 10)
    assert _accuracy_after(MnistCnn(task.spec), task, 3) > 0.9


@pytest.mark.skipif(not (DATA / "cifar10").is_dir(), reason="no cifar10 folder")
def test_cifar10_folder_is_read_in_colour() -> None:
    task = image_folder.load(str(DATA / "cifar10"))
    assert (task.spec.input_shape, task.spec.num_classes) == ((3, 32, 32), 10)
    assert (len(task.train), len(task.test)) == (10_000, 2_000)


@pytest.mark.parametrize(
    ("name", "num_classes", "sizes", "at_least"),
    [("sst2", 2, (6920, 1821), 0.75), ("ag_news", 4, (6600, 1000), 0.8)],
)
def test_token_ids_of_text_tables_tell_the_classes_apart(
    name: str, num_classes: int, sizes: tuple[int, int], at_least: float
) -> None:
    # A linear classifier over token counts: independent of our models.
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    pytest.importorskip("datasets")
    if not (DATA / name).is_dir():
        pytest.skip(f"no {name} folder")
    task = text_csv.load(str(DATA / name))
    assert (task.spec.num_classes, len(task.train), len(task.test)) == (num_classes, *sizes)
    assert float((task.train.inputs == 1).float().mean()) < 0.01  # hardly any unknown token
    counts = [
        torch.zeros(len(split), task.spec.vocab_size)
        .scatter_add_(1, split.inputs, torch.ones(split.inputs.shape))[:, 5:]  # specials left out
        .numpy()
        for split in (task.train, task.test)
    ]
    linear = make_pipeline(TfidfTransformer(), LogisticRegression(max_iter=300))
    linear.fit(counts[0], task.train.labels.numpy())
    assert linear.score(counts[1], task.test.labels.numpy()) > at_least


@pytest.mark.skipif(not (DATA / "ag_news").is_dir(), reason="no ag_news folder")
def test_news_teach_a_text_cnn() -> None:
    pytest.importorskip("datasets")
    task = text_csv.load(str(DATA / "ag_news"), max_test=500)
    assert _accuracy_after(TextCnn(task.spec), task, 2) > 0.6  # chance is 0.25
