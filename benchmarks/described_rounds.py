"""Described rounds in one small file, so that detectors are learned without playing for hours.

A detector reads how far a descriptor lies from its median over the clients of a round, and nothing
else of it: that is what is kept, rounded to the eight leading bits of a bfloat16. Files are NumPy
archives without pickled parts.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fl_shield.atomic import draft_of
from fl_shield.errors import StateError
from fl_shield.shadow.table import EpisodeTable, write_tables


def pack(file: Path, tables: Sequence[EpisodeTable]) -> None:
    """Write rounds to one compressed file.

    Args:
        file: Where to.
        tables: Rounds; those of a federation follow each other.
    """
    columns = sorted({table.names for table in tables})
    arrays: dict[str, NDArray[Any]] = {}
    for kind, names in enumerate(columns):
        alike = [table for table in tables if table.names == names]
        offsets = np.concatenate([_offsets(table) for table in alike])
        arrays[f"{kind}.offsets"] = _rounded(offsets.T)  # values of a column compress best together
        arrays[f"{kind}.malicious"] = np.concatenate([table.malicious for table in alike])
        arrays[f"{kind}.client_ids"] = np.concatenate([table.client_ids for table in alike])
    heads = [
        [t.domain, t.run, t.round_number, columns.index(t.names), len(t), dict(t.facts)]
        for t in tables
    ]
    text = json.dumps({"columns": columns, "rounds": heads}).encode()
    arrays["heads"] = np.frombuffer(text, dtype=np.uint8)
    with draft_of(file) as draft, draft.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def unpacked(file: Path) -> Iterator[EpisodeTable]:
    """Yield the rounds of a file that `pack` wrote; descriptors are relative to their medians.

    Raises:
        StateError: if the file is missing or damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
        text = json.loads(arrays["heads"].tobytes())
        columns = [tuple(names) for names in text["columns"]]
        raw = [_exact(arrays[f"{kind}.offsets"]).T for kind in range(len(columns))]
        taken = [0] * len(columns)
        for domain, run, number, kind, size, facts in text["rounds"]:
            part = slice(taken[kind], taken[kind] + size)
            taken[kind] += size
            yield EpisodeTable(
                domain, run, number, columns[kind], raw[kind][part],
                arrays[f"{kind}.malicious"][part], arrays[f"{kind}.client_ids"][part], facts,
            )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise StateError(
            f"{file} is missing or damaged ({error!r}). Delete it, and its rounds are played anew."
        ) from error


def unpack(file: Path, folder: Path) -> None:
    """Write the tables of a file's federations to a folder, but those that are there."""
    for run, tables in groupby(unpacked(file), key=lambda table: table.run):
        target = folder / f"{run}.safetensors"
        if not target.is_file():
            write_tables(target, list(tables))


def digest_of(table: EpisodeTable) -> str:
    """Return a digest of what `pack` would keep of a round: the same before and after."""
    head = json.dumps([table.run, table.round_number, table.names, table.malicious.tolist()])
    kept = _rounded(_offsets(table))
    return hashlib.sha256(head.encode() + kept.tobytes()).hexdigest()[:12]


def _offsets(table: EpisodeTable) -> NDArray[np.float64]:
    """Return the descriptors less their medians over the clients."""
    offsets: NDArray[np.float64] = table.raw - np.median(table.raw, axis=0)
    return offsets


def _rounded(values: NDArray[np.float64]) -> NDArray[np.int16]:
    """Return the bits of the nearest bfloat16 numbers."""
    numbers = torch.from_numpy(np.ascontiguousarray(values)).to(torch.bfloat16)
    bits: NDArray[np.int16] = numbers.view(torch.int16).numpy()
    return bits


def _exact(bits: NDArray[np.int16]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = torch.from_numpy(bits).view(torch.bfloat16).double().numpy()
    return values
