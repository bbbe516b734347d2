"""Data sets that every machine can make: letters, patches of photographs, docstrings."""

import ast
import importlib.util
from pathlib import Path

import pytest
import torch

from fl_shield.data import docstrings, glyphs, photos
from fl_shield.errors import DataError


def test_letters_are_drawn_the_same_every_time_and_seeds_differ() -> None:
    first, again, other = (glyphs.load(samples_per_class=10, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert not torch.equal(first.train.inputs, other.train.inputs)


def test_letters_are_colour_images_spread_over_all_classes() -> None:
    task = glyphs.load(samples_per_class=20, test_share=0.2)
    assert (task.spec.modality, task.spec.input_shape) == ("image", (3, 32, 32))
    assert task.classes == tuple(glyphs.LETTERS)
    assert task.train.inputs.dtype == torch.uint8
    assert torch.bincount(task.train.labels).tolist() == [16] * 10
    assert torch.bincount(task.test.labels).tolist() == [4] * 10
    everything = torch.cat([task.train.inputs, task.test.inputs]).flatten(1)
    assert len(set(map(bytes, everything.numpy()))) == 200  # no image twice
    assert (everything.float().std(dim=1) > 10).all()  # and none is blank


def test_a_letter_can_be_told_from_another() -> None:
    """Independent of our models: linear discriminants over edges beat the chance of 1 in 10."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    task = glyphs.load(samples_per_class=150)

    def edges(inputs: torch.Tensor) -> torch.Tensor:
        grey = inputs.float().mean(dim=1)
        steps = grey.diff(dim=1).abs()[:, :, :-1] + grey.diff(dim=2).abs()[:, :-1]
        return torch.nn.functional.avg_pool2d(steps[:, None], 3).flatten(1)

    linear = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    linear.fit(edges(task.train.inputs).numpy(), task.train.labels.numpy())
    assert linear.score(edges(task.test.inputs).numpy(), task.test.labels.numpy()) > 0.2


def test_too_few_letters_are_refused() -> None:
    with pytest.raises(DataError, match=r"samples_per_class.*10 or more, got 3"):
        glyphs.load(samples_per_class=3)


def test_patches_are_cut_the_same_every_time_from_all_parts_of_both_photographs() -> None:
    first, again, other = (photos.load(samples_per_class=10, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert not torch.equal(first.train.inputs, other.train.inputs)
    assert (first.spec.input_shape, first.train.inputs.dtype) == ((3, 32, 32), torch.uint8)
    assert torch.bincount(first.train.labels).tolist() == [8] * 10
    assert first.classes[0] == "china 1"
    assert first.classes[-1] == "flower 5"


def test_photographs_can_be_told_apart_by_their_colours() -> None:
    """The flower is orange before blue, the palace is not: mean colours alone tell which it is."""
    from sklearn.linear_model import LogisticRegression

    task = photos.load(samples_per_class=60)
    linear = LogisticRegression(max_iter=1000)
    colours = [s.inputs.float().flatten(2).mean(dim=2).numpy() for s in (task.train, task.test)]
    linear.fit(colours[0], (task.train.labels >= photos.COLUMNS).numpy())
    assert linear.score(colours[1], (task.test.labels >= photos.COLUMNS).numpy()) > 0.75


def test_too_few_patches_are_refused() -> None:
    with pytest.raises(DataError, match=r"samples_per_class.*10 or more, got 3"):
        photos.load(samples_per_class=3)


def test_sentences_are_those_of_the_library_without_its_name() -> None:
    sentences = set(docstrings._sentences("rich"))
    assert all(len(text.split()) >= docstrings.MIN_WORDS for text in sentences)
    assert not any("rich" in text.lower().split() for text in sentences)
    spec = importlib.util.find_spec("rich.console")
    assert spec is not None
    assert spec.origin is not None
    module = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    console = next(n for n in module.body if isinstance(n, ast.ClassDef) and n.name == "Console")
    first = " ".join((ast.get_docstring(console) or "").split("\n\n")[0].split())
    assert any(text.split()[:4] == first.split()[:4] for text in sentences)


def test_docstrings_make_a_text_task() -> None:
    pytest.importorskip("tokenizers")
    task = docstrings.load(
        libraries=("rich", "omegaconf"), samples_per_class=60, vocab_size=400, max_length=16
    )
    again = docstrings.load(
        libraries=("rich", "omegaconf"), samples_per_class=60, vocab_size=400, max_length=16
    )
    assert torch.equal(task.train.inputs, again.train.inputs)
    assert (task.spec.modality, task.spec.input_shape) == ("text", (16,))
    assert set(task.classes) == {"rich", "omegaconf"}
    assert int(task.train.inputs.max()) < task.spec.vocab_size
    # A fifth of each class, rounded up, is held out.
    sizes = torch.bincount(torch.cat([task.train.labels, task.test.labels]))
    held = torch.bincount(task.test.labels)
    assert held.tolist() == [-(-int(size) // 5) for size in sizes]


@pytest.mark.parametrize("name", ["no_such_package_here", "six"])
def test_what_is_no_package_is_named(name: str) -> None:
    with pytest.raises(DataError, match=f"installed packages.*{name}"):
        docstrings.load(libraries=(name,))


def test_share_outside_its_range_is_refused() -> None:
    with pytest.raises(DataError, match=r"test_share.*between 0 and 1, got 1.5"):
        docstrings.load(test_share=1.5)


def test_packages_that_know_their_place_as_a_path_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec("rich")
    assert found is not None
    assert found.submodule_search_locations is not None
    places = [Path(place) for place in found.submodule_search_locations]
    monkeypatch.setattr(found, "submodule_search_locations", places)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    assert len(set(docstrings._sentences("rich"))) > 100
