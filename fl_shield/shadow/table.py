"""The episode table: descriptors and truth of one shadow round, and their file format.

Weights of a captured round are large and its descriptors small: detectors are trained on tables,
which are written once a round and read in bulk. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fl_shield.atomic import draft_of
from fl_shield.errors import StateError

FORMAT = "fl_shield.episodes"
VERSION = 1


@dataclass(frozen=True)
class SupportTable:
    """Updates that a server simulated from a few clean samples on one round's global model.

    Attributes:
        clean_samples: How many clean samples the server had.
        raw: `(shadows, descriptors)`, the columns of the episode it belongs to.
        malicious: `(shadows,)`; Jumbo-poisoned shadows are True.
    """

    clean_samples: int
    raw: NDArray[np.float64]
    malicious: NDArray[np.bool_]


@dataclass(frozen=True)
class EpisodeTable:
    """Descriptors and truth of one shadow round.

    Attributes:
        domain: Name of the domain, for example `"mnist"`.
        run: The shadow federation that the round belongs to.
        round_number: Round, counted from 1.
        names: Descriptor names, one a column.
        raw: `(clients, descriptors)`, finite.
        malicious: `(clients,)` truth.
        client_ids: `(clients,)` identities, stable over the rounds of a run.
        facts: JSON-ready facts: architecture, trigger, model poisoning, optimiser, …
        support: What the server could simulate itself on this round's global model.
    """

    domain: str
    run: str
    round_number: int
    names: tuple[str, ...]
    raw: NDArray[np.float64]
    malicious: NDArray[np.bool_]
    client_ids: NDArray[np.int64]
    facts: Mapping[str, Any]
    support: tuple[SupportTable, ...] = ()

    def __len__(self) -> int:
        return int(self.raw.shape[0])


def write_tables(file: str | Path, tables: Sequence[EpisodeTable]) -> Path:
    """Write tables to one safetensors file, whole or not at all, and return its path."""
    target = Path(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, NDArray[Any]] = {}
    heads = []
    for index, table in enumerate(tables):
        arrays[f"{index}.raw"] = np.ascontiguousarray(table.raw)
        arrays[f"{index}.malicious"] = table.malicious.astype(np.uint8)
        arrays[f"{index}.client_ids"] = table.client_ids.astype(np.int64)
        for number, support in enumerate(table.support):
            arrays[f"{index}.support.{number}.raw"] = np.ascontiguousarray(support.raw)
            arrays[f"{index}.support.{number}.malicious"] = support.malicious.astype(np.uint8)
        heads.append(
            {
                "domain": table.domain,
                "run": table.run,
                "round": table.round_number,
                "names": list(table.names),
                "facts": dict(table.facts),
                "support": [support.clean_samples for support in table.support],
            }
        )
    metadata = {"format": FORMAT, "version": str(VERSION), "tables": json.dumps(heads)}
    with draft_of(target) as draft:
        save_file(arrays, draft, metadata=metadata)
    return target


def read_tables(file: str | Path) -> list[EpisodeTable]:
    """Return the tables of a file written by `write_tables`.

    Raises:
        StateError: if the file is missing, damaged or of another version.
    """
    try:
        with safe_open(file, framework="numpy") as archive:
            metadata = archive.metadata() or {}
            arrays = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise StateError(f"{file} is missing or damaged: {error}.") from error
    if metadata.get("format") != FORMAT or metadata.get("version") != str(VERSION):
        raise StateError(
            f"{file} is no table of episodes of version {VERSION}. Make it anew: fl-shield shadow."
        )
    try:
        heads = json.loads(metadata["tables"])
        return [_table(index, head, arrays) for index, head in enumerate(heads)]
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"{file} is damaged: {error!r}.") from error


def _table(index: int, head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> EpisodeTable:
    support = tuple(
        SupportTable(
            int(samples),
            arrays[f"{index}.support.{number}.raw"],
            arrays[f"{index}.support.{number}.malicious"].astype(bool),
        )
        for number, samples in enumerate(head["support"])
    )
    return EpisodeTable(
        domain=str(head["domain"]),
        run=str(head["run"]),
        round_number=int(head["round"]),
        names=tuple(head["names"]),
        raw=arrays[f"{index}.raw"],
        malicious=arrays[f"{index}.malicious"].astype(bool),
        client_ids=arrays[f"{index}.client_ids"],
        facts=head["facts"],
        support=support,
    )
