"""A disk cache of materialised data sets, so that many processes decode the same files once.

Entries are safetensors files with the class names in their metadata, keyed by the loader's
settings and by a fingerprint of the files read (names, sizes, modification times). They are
written atomically; an entry that cannot be read is built again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fl_shield.atomic import draft_of
from fl_shield.data.task import Split

FORMAT = "2"
"""Changes when the form of cached entries does."""

Entry = tuple[dict[str, Tensor], dict[str, str]]
"""Tensors by name, and text beside them."""


def cache_folder() -> Path:
    """Return the cache folder: `FL_SHIELD_CACHE`, or `fl_shield` under the user's cache."""
    explicit = os.environ.get("FL_SHIELD_CACHE")
    if explicit:
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fl_shield"


def fingerprint(files: Iterable[Path]) -> str:
    """Return a digest of names, sizes and modification times of `files`."""
    digest = hashlib.sha256()
    for file in sorted(files):
        stat = file.stat()
        digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def cached_splits(
    key: Mapping[str, Any], build: Callable[[], tuple[Split, Split, tuple[str, ...]]]
) -> tuple[Split, Split, tuple[str, ...]]:
    """Return train split, test split and class names from the cache, building them if needed.

    Args:
        key: Everything that the result depends on, JSON-ready.
        build: Makes the splits when the cache does not hold them.
    """

    def entry() -> Entry:
        train, test, classes = build()
        return tensors_of(train, test), {"classes": json.dumps(classes)}

    tensors, text = cached(key, entry)
    return *splits_of(tensors), tuple(json.loads(text["classes"]))


def cached(key: Mapping[str, Any], build: Callable[[], Entry]) -> Entry:
    """Return tensors and the text beside them from the cache, building them if needed.

    Args:
        key: Everything that the result depends on, JSON-ready.
        build: Makes the entry when the cache does not hold it, or holds it damaged.
    """
    text = json.dumps({"format": FORMAT, **key}, sort_keys=True, default=str)
    file = cache_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"
    found = _read(file)
    if found is None:
        found = build()
        _write(file, *found)
    return found


def tensors_of(train: Split, test: Split) -> dict[str, Tensor]:
    """Return the tensors of two splits under the names that `splits_of` reads."""
    return {
        "train.inputs": train.inputs,
        "train.labels": train.labels,
        "test.inputs": test.inputs,
        "test.labels": test.labels,
    }


def splits_of(tensors: Mapping[str, Tensor]) -> tuple[Split, Split]:
    """Return the train and test splits in `tensors`."""
    return (
        Split(tensors["train.inputs"], tensors["train.labels"]),
        Split(tensors["test.inputs"], tensors["test.labels"]),
    )


def _read(file: Path) -> Entry | None:
    try:
        with safe_open(file, framework="pt") as archive:
            names = archive.keys()
            return {name: archive.get_tensor(name) for name in names}, archive.metadata()
    except (OSError, SafetensorError):
        return None


def _write(file: Path, tensors: Mapping[str, Tensor], text: dict[str, str]) -> None:
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    # A full or read-only disk costs time, not the run.
    with suppress(OSError, SafetensorError), draft_of(file) as draft:
        save_file(contiguous, draft, metadata=text)
