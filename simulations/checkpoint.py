"""Checkpoints of an arm: enough to go on with the next round as if nothing had happened.

Each is a safetensors file of arrays (the global model and the server optimiser's) and a JSON file
with everything else and the digest of the arrays, written atomically in that order. The last two
are kept, so that one damaged file costs a round, not the run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
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

from fl_shield.errors import StateError

KEPT = 2
"""Checkpoints that are kept."""

OPTIMISER_STATE = ("m_t", "v_t", "momentum_vector", "current_arrays")
"""Attributes in which Flower's server optimisers keep arrays between rounds."""

_log = logging.getLogger("flwr.fl_shield")


@dataclass(frozen=True)
class Checkpoint:
    """What an arm goes on from.

    Attributes:
        round_number: Last round that was finished.
        arrays: Global model after it.
        optimiser: State of the server optimiser, `"<layer>/<attribute>/<name>"` to array.
        shield: State of the shield, None without one.
    """

    round_number: int
    arrays: ArrayRecord
    optimiser: Mapping[str, NDArray[Any]]
    shield: Mapping[str, Any] | None


def write_checkpoint(
    folder: Path, round_number: int, arrays: ArrayRecord, strategy: Strategy
) -> None:
    """Write the checkpoint of a finished round and forget the oldest ones."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model/{name}": array.numpy() for name, array in arrays.items()}
    tensors |= {f"optimiser/{name}": value for name, value in _optimiser_state(strategy).items()}
    # safetensors stores the memory as it lies; a view would be stored in the wrong order.
    blob = save({name: np.ascontiguousarray(value) for name, value in tensors.items()})
    shield = getattr(strategy, "state_dict", None)
    state = {
        "round": round_number,
        "names": list(arrays.keys()),
        "sha256": hashlib.sha256(blob).hexdigest(),
        "shield": shield() if shield is not None else None,
    }
    _replace(folder / f"{round_number:06d}.safetensors", blob)
    _replace(folder / f"{round_number:06d}.json", json.dumps(state).encode())
    for old in sorted(folder.glob("*.json"))[:-KEPT]:
        old.unlink(missing_ok=True)
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the last good checkpoint of an arm, None if there is none.

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
        StateError: if the shield's state cannot be read.
    """
    grouped: dict[tuple[int, str], dict[str, NDArray[Any]]] = {}
    for name, value in checkpoint.optimiser.items():
        layer, attribute, key = name.split("/", 2)
        grouped.setdefault((int(layer), attribute), {})[key] = value
    layers = _layers(strategy)
    for (layer_number, attribute), values in grouped.items():
        owner = layers[layer_number]
        if attribute == "current_arrays" and not isinstance(getattr(owner, attribute, None), dict):
            setattr(owner, attribute, ArrayRecord({k: Array(v) for k, v in values.items()}))
        else:
            setattr(owner, attribute, values)
    load_state = getattr(strategy, "load_state_dict", None)
    if load_state is not None and checkpoint.shield is not None:
        load_state(checkpoint.shield)


def _read(file: Path) -> Checkpoint:
    try:
        state = json.loads(file.read_text())
        blob = file.with_suffix(".safetensors").read_bytes()
        if hashlib.sha256(blob).hexdigest() != state["sha256"]:
            raise ValueError("the arrays are not those that were written")
        tensors = load(blob)
        names = [str(name) for name in state["names"]]
        arrays = ArrayRecord({name: Array(tensors[f"model/{name}"]) for name in names})
        optimiser = {
            name.removeprefix("optimiser/"): value
            for name, value in tensors.items()
            if name.startswith("optimiser/")
        }
        return Checkpoint(int(state["round"]), arrays, optimiser, state["shield"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise StateError(f"The checkpoint {file} is damaged ({error}).") from error


def _layers(strategy: Strategy) -> list[object]:
    """Return a strategy and those inside it, outermost first."""
    layers: list[object] = []
    layer: object | None = strategy
    while layer is not None and layer not in layers:
        layers.append(layer)
        layer = getattr(layer, "strategy", None)
    return layers


def _optimiser_state(strategy: Strategy) -> dict[str, NDArray[Any]]:
    state: dict[str, NDArray[Any]] = {}
    for number, layer in enumerate(_layers(strategy)):
        for attribute in OPTIMISER_STATE:
            values = getattr(layer, attribute, None)
            if isinstance(values, ArrayRecord | dict):
                for key, value in values.items():
                    array = value.numpy() if isinstance(value, Array) else np.asarray(value)
                    state[f"{number}/{attribute}/{key}"] = array
    return state


def _replace(file: Path, content: bytes) -> None:
    temporary = file.with_suffix(file.suffix + ".part")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, file)
