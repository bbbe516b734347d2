"""A disk cache of materialised data sets, so that many processes decode the same files once.

Entries are safetensors files with the class names in their metadata, keyed by the loader's
settings and by a fingerprint of the files read (names, sizes, modification times). They are
written atomically; an entry that cannot be read is built again.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fl_shield.data.task import Split

FORMAT = "1"
"""Changes when the form of cached entries does."""


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
    text = json.dumps({"format": FORMAT, **key}, sort_keys=True, default=str)
    file = cache_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"
    found = _read(file)
    if found is not None:
        return found
    train, test, classes = build()
    _write(file, train, test, classes)
    return train, test, classes


def _read(file: Path) -> tuple[Split, Split, tuple[str, ...]] | None:
    try:
        with safe_open(file, framework="pt") as archive:
            names = ("train.inputs", "train.labels", "test.inputs", "test.labels")
            tensors = [archive.get_tensor(name) for name in names]
            classes = tuple(json.loads(archive.metadata()["classes"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return Split(*tensors[:2]), Split(*tensors[2:]), classes


def _write(file: Path, train: Split, test: Split, classes: tuple[str, ...]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, suffix=".part")
        os.close(handle)
        tensors = {
            "train.inputs": train.inputs.contiguous(),
            "train.labels": train.labels.contiguous(),
            "test.inputs": test.inputs.contiguous(),
            "test.labels": test.labels.contiguous(),
        }
        save_file(tensors, temporary, metadata={"classes": json.dumps(classes)})
        os.replace(temporary, file)
    except OSError:
        return  # a full or read-only disk costs time, not the run
