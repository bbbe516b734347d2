"""Checkpoints of a run: enough to go on with the next round as if nothing had happened.

Each is a safetensors file of arrays (the global model and the server optimiser's) and a JSON file
with everything else, the digest of the arrays and its own, written atomically in that order. The
last two are kept, so that one damaged file costs a round, not the run.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fl_shield.atomic import draft_of
from fl_shield.errors import StateError

KEPT = 2
"""Checkpoints that are kept."""

OPTIMISER_STATE = ("m_t", "v_t", "momentum_vector", "current_arrays")
"""Attributes in which Flower's server optimisers keep arrays between rounds."""

OptimiserState = ArrayRecord | dict[str, NDArray[Any]] | list[NDArray[Any]]
"""The three forms in which they do. Their order counts: Flower pairs some of them by position."""

_log = logging.getLogger("flwr.fl_shield")


@dataclass(frozen=True)
class Checkpoint:
    """What a run goes on from.

    Attributes:
        round_number: Last round that was finished.
        arrays: Global model after it.
        optimiser: State of the server optimiser: `"<layer>/<attribute>"`, with layer 0 the
            outermost strategy, to what stands there.
        shield: State of the shield, None without one.
        audit_bytes: Length of the audit log after that round, None without one.
    """

    round_number: int
    arrays: ArrayRecord
    optimiser: Mapping[str, OptimiserState]
    shield: Mapping[str, Any] | None
    audit_bytes: int | None = None


def write_checkpoint(
    folder: Path,
    round_number: int,
    arrays: ArrayRecord,
    strategy: Strategy,
    audit_bytes: int | None = None,
) -> None:
    """Write the checkpoint of a finished round and forget the oldest ones.

    Raises:
        OSError: if the disk refuses; earlier checkpoints are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model/{name}": array.numpy() for name, array in arrays.items()}
    optimiser: dict[str, dict[str, Any]] = {}
    for place, values in _optimiser_state(strategy).items():
        named = _named(values)
        optimiser[place] = {"kind": _kind(values), "names": list(named)}
        tensors |= {f"optimiser/{place}/{name}": value for name, value in named.items()}
    # safetensors stores the memory as it lies; a view would be stored in the wrong order.
    blob = save({name: np.asarray(value, order="C") for name, value in tensors.items()})
    shield = getattr(strategy, "state_dict", None)
    state = {
        "round": round_number,
        "names": list(arrays.keys()),
        "optimiser": optimiser,  # safetensors sorts its names
        "sha256": hashlib.sha256(blob).hexdigest(),
        "shield": shield() if shield is not None else None,
        "audit_bytes": audit_bytes,
    }
    content = json.dumps(state)
    signed = {"sha256": hashlib.sha256(content.encode()).hexdigest(), "state": content}
    _replace(folder / f"{round_number:06d}.safetensors", blob)
    _replace(folder / f"{round_number:06d}.json", json.dumps(signed).encode())
    kept = {file.stem for file in sorted(folder.glob("*.json"))[-KEPT:]}
    for old in folder.glob("[0-9]*.*"):  # unfinished files of a killed process, too
        if old.name.partition(".")[0] not in kept:
            old.unlink(missing_ok=True)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the last good checkpoint of a run, None if there is none.

    A damaged one is named in the log, and the one before it is taken.
    """
    for file in sorted(folder.glob("*.json"), reverse=True):
        try:
            return _read(file)
        except StateError as error:
            _log.warning("%s The checkpoint before it is used.", error)
    return None


def restore(strategy: Strategy, checkpoint: Checkpoint) -> None:
    """Put server optimiser and shield back into the state of a checkpoint.

    Raises:
        StateError: if the shield's state cannot be read, or belongs to another strategy.
    """
    found = layers(strategy)
    for place, values in checkpoint.optimiser.items():
        layer, attribute = place.split("/")
        if int(layer) >= len(found):
            raise StateError(
                "The checkpoint is that of another strategy. Resume with the same one."
            )
        setattr(found[int(layer)], attribute, values)
    load_state = getattr(strategy, "load_state_dict", None)
    if load_state is not None and checkpoint.shield is not None:
        load_state(checkpoint.shield)


def _read(file: Path) -> Checkpoint:
    try:
        signed = json.loads(file.read_text())
        content = str(signed["state"])
        if hashlib.sha256(content.encode()).hexdigest() != signed["sha256"]:
            raise ValueError("it is not what was written")
        state = json.loads(content)
        blob = file.with_suffix(".safetensors").read_bytes()
        if hashlib.sha256(blob).hexdigest() != state["sha256"]:
            raise ValueError("the arrays are not those that were written")
        tensors = load(blob)
        names = [str(name) for name in state["names"]]
        arrays = ArrayRecord({name: Array(tensors[f"model/{name}"]) for name in names})
        optimiser = {
            str(place): _formed(
                entry["kind"],
                {name: tensors[f"optimiser/{place}/{name}"] for name in entry["names"]},
            )
            for place, entry in state["optimiser"].items()
        }
        audit_bytes = state["audit_bytes"]
        return Checkpoint(int(state["round"]), arrays, optimiser, state["shield"], audit_bytes)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise StateError(f"The checkpoint {file} is damaged ({error}).") from error


def layers(strategy: Strategy) -> list[object]:
    """Return a strategy and those inside it, outermost first."""
    found: list[object] = []
    layer: object | None = strategy
    while layer is not None and layer not in found:
        found.append(layer)
        layer = getattr(layer, "strategy", None)
    return found


def _optimiser_state(strategy: Strategy) -> dict[str, OptimiserState]:
    state: dict[str, OptimiserState] = {}
    for number, layer in enumerate(layers(strategy)):
        for attribute in OPTIMISER_STATE:
            values = getattr(layer, attribute, None)
            if values is not None:
                state[f"{number}/{attribute}"] = values
    return state


def _kind(values: OptimiserState) -> str:
    if isinstance(values, ArrayRecord):
        return "arrays"
    return "list" if isinstance(values, list) else "dict"


def _named(values: OptimiserState) -> dict[str, NDArray[Any]]:
    if isinstance(values, ArrayRecord):
        return {name: array.numpy() for name, array in values.items()}
    pairs = values.items() if isinstance(values, dict) else enumerate(values)
    return {str(name): np.asarray(value) for name, value in pairs}


def _formed(kind: str, named: dict[str, NDArray[Any]]) -> OptimiserState:
    if kind == "arrays":
        return ArrayRecord({name: Array(value) for name, value in named.items()})
    return list(named.values()) if kind == "list" else named


def _replace(file: Path, content: bytes) -> None:
    with draft_of(file, durable=True) as draft:
        draft.write_bytes(content)
