"""Sentences of docstrings: real texts that every machine has, told apart by their library."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fl_shield.data.cache import Entry, cached, fingerprint
from fl_shield.data.task import Task
from fl_shield.data.text import Texts, text_task
from fl_shield.errors import DataError, expected

LIBRARIES = ("numpy", "scipy", "sklearn", "torch")
MIN_WORDS = 4


def load(
    libraries: Sequence[str] = LIBRARIES,
    samples_per_class: int = 1800,
    test_share: float = 0.2,
    seed: int = 0,
    vocab_size: int = 6000,
    max_length: int = 48,
    max_train: int | None = None,
    max_test: int | None = None,
) -> Task:
    """Return the task of telling from a sentence which library's documentation it is of.

    The texts depend on the installed versions. Sources are parsed, not imported.

    Args:
        libraries: Installed packages, one class each.
        samples_per_class: Most sentences of each.
        test_share: Share held out for evaluation.
        seed: Seed of the choice.
        vocab_size: Size of the tokenizer trained on the training texts.
        max_length: Tokens of a text.
        max_train: Limit of the training texts; None for all.
        max_test: Limit of the test texts; None for all.

    Raises:
        DataError: if a package is not installed or holds no sentences.
    """
    if not 0 < test_share < 1:
        raise DataError(expected("data.test_share", "between 0 and 1", test_share))
    parts: dict[bool, tuple[list[str], list[object]]] = {False: ([], []), True: ([], [])}
    rng = np.random.default_rng(seed)
    for library in libraries:
        sentences = _sentences(library)
        if len(sentences) < 10:
            raise DataError(f"The package {library!r} holds too few docstrings; name another.")
        chosen = rng.permutation(len(sentences))[:samples_per_class]
        for position, index in enumerate(chosen):
            texts, labels = parts[position < test_share * len(chosen)]
            texts.append(sentences[index])
            labels.append(library)
    return text_task(
        "docstrings",
        Texts(*parts[False]),
        Texts(*parts[True]),
        tokenizer=None,
        vocab_size=vocab_size,
        max_length=max_length,
        max_train=max_train,
        max_test=max_test,
    )


def _sentences(library: str) -> list[str]:
    """Return the sentences of a package, sorted, each once; parsing its sources takes a while."""
    files = list(_sources(library))

    def build() -> Entry:
        found = {sentence for file in files for sentence in _first_paragraphs(file, library)}
        return {}, {"sentences": json.dumps(sorted(found))}

    key = {"loader": "docstrings", "library": library, "files": fingerprint(files)}
    sentences: list[str] = json.loads(cached(key, build)[1]["sentences"])
    return sentences


def _sources(library: str) -> Iterator[Path]:
    """Yield the source files of an installed package, without its tests."""
    found = importlib.util.find_spec(library)
    if found is None or not found.submodule_search_locations:
        raise DataError(expected("data.libraries", "installed packages", library))
    for place in map(str, found.submodule_search_locations):  # some packages put paths there
        for file in sorted(Path(place).rglob("*.py")):
            if "test" not in file.as_posix().removeprefix(place):
                yield file


def _first_paragraphs(file: Path, library: str) -> Iterator[str]:
    """Yield the first paragraphs of a file's docstrings, without the name of their package."""
    for text in _docstrings(file):
        first = " ".join(text.strip().split("\n\n")[0].split())
        first = re.sub(rf"\b{library}\b", "", first, flags=re.IGNORECASE)
        if len(first.split()) >= MIN_WORDS:
            yield first


def _docstrings(file: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in other people's strings
            tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text
