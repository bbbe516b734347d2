"""Files that are the old one or the new one, whatever happens while they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def draft_of(file: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a path beside `file`; what is written there takes its place once the block is through.

    If the block fails, the file stays as it was and the draft is removed. Several processes may
    write the same file: the last one to finish wins.

    Args:
        file: The file; its folder is made if it is missing.
        durable: Wait until the new file survives a power cut.

    Raises:
        OSError: if the folder cannot be written to.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        yield draft
        if durable:
            _sync(draft)
        os.replace(draft, file)
        if durable:
            _sync(file.parent)  # the new name lasts only once its folder is on disk
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
