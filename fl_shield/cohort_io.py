"""Capture and replay of a cohort: a folder of safetensors files and a JSON manifest.

Audits, bug reports, benchmarks and tests share this one format. The manifest names every file with
its SHA-256, so that a damaged or swapped file is named on load; nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fl_shield.cohort import ClientUpdate, Cohort, State
from fl_shield.errors import ConfigurationError, StateError, expected

FORMAT = "fl_shield.cohort"
VERSION = 1
MANIFEST = "manifest.json"
REFERENCE = "reference.safetensors"


def capture(cohort: Cohort, folder: str | Path, notes: Mapping[str, Any] | None = None) -> Path:
    """Write a cohort to a folder and return it; an earlier capture there is replaced.

    Clients are written one at a time. The folder appears whole or not at all.

    Args:
        cohort: The cohort.
        folder: Where to.
        notes: JSON-ready values to keep beside it, for example the truth in a simulation.

    Raises:
        ConfigurationError: if `folder` exists and is no capture.
        OSError: if the disk refuses.
    """
    target = Path(folder)
    if target.exists() and not (target / MANIFEST).is_file():
        raise ConfigurationError(
            expected("capture", "a new folder or an earlier capture", str(target))
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        reference = write_arrays(draft / REFERENCE, cohort.reference)
        clients = []
        for index, client in enumerate(cohort.clients):
            name = f"client-{index:05d}.safetensors"
            clients.append(
                {
                    "client_id": str(client.client_id),  # 64-bit ids do not survive JSON numbers
                    "num_examples": client.num_examples,
                    "file": name,
                    "sha256": write_arrays(draft / name, client.load()),
                }
            )
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "round": cohort.round_number,
            "arrays": list(cohort.reference),
            "reference": {"file": REFERENCE, "sha256": reference},
            "clients": clients,
            "notes": dict(notes or {}),
        }
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        os.replace(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return target


def replay(folder: str | Path) -> Cohort:
    """Return a captured cohort; clients are read from disk whenever they are asked for.

    Raises:
        ConfigurationError: if the folder holds no capture.
        StateError: naming the file that is damaged, missing or of another version.
    """
    source = Path(folder)
    manifest = read_manifest(source)
    try:
        names = [str(name) for name in manifest["arrays"]]
        reference = read_arrays(source, manifest["reference"], names)
        clients = tuple(_replayed_client(source, entry, reference) for entry in manifest["clients"])
        return Cohort(int(manifest["round"]), reference, clients)
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"{source / MANIFEST} is damaged: {error!r}.") from error


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Return the manifest of a capture, its format and version checked.

    Raises:
        ConfigurationError: if the folder holds no capture.
        StateError: if the manifest is damaged or of another version.
    """
    file = Path(folder) / MANIFEST
    if not file.is_file():
        raise ConfigurationError(
            expected("cohort", f"a folder with a {MANIFEST}", str(folder), "Capture a round first.")
        )
    try:
        manifest = json.loads(file.read_bytes())
    except ValueError as error:
        raise StateError(f"{file} is damaged: it is no JSON ({error}).") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StateError(f"{file} is no manifest of a captured cohort.")
    if manifest.get("version") != VERSION:
        raise StateError(
            f"{file} has version {manifest.get('version')!r}; this fl_shield reads {VERSION}."
        )
    return manifest


def write_arrays(file: Path, state: State) -> str:
    """Write arrays as safetensors and return the file's SHA-256."""
    content = save({name: _plain(array) for name, array in state.items()})
    file.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def read_arrays(
    folder: Path, entry: Mapping[str, Any], names: list[str]
) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of one file, in the order of `names`, their checksum verified.

    Args:
        folder: Folder of the capture.
        entry: `{"file", "sha256"}` from its manifest.
        names: Arrays that must be there, and no others.

    Raises:
        StateError: naming the file.
    """
    name = str(entry["file"])
    file = folder / name
    if Path(name).name != name:
        raise StateError(f"{folder / MANIFEST} names a file outside its folder: {name!r}.")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise StateError(f"{file} is missing or cannot be read ({error}).") from error
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise StateError(f"{file} is damaged: its SHA-256 is not the one in the manifest.")
    try:
        arrays = load(content)
    except SafetensorError as error:
        raise StateError(f"{file} is damaged: {error}.") from error
    if set(arrays) != set(names):
        raise StateError(f"{file} does not hold the arrays that its manifest lists.")
    return {key: arrays[key] for key in names}


def _replayed_client(folder: Path, entry: Mapping[str, Any], reference: State) -> ClientUpdate:
    names = list(reference)

    def read() -> State:
        state = read_arrays(folder, entry, names)
        for name, array in state.items():
            if array.shape != reference[name].shape:
                raise StateError(f"{folder / str(entry['file'])}: {name!r} has another shape.")
        return state

    read()  # a damaged capture is named now, not in the middle of an analysis
    return ClientUpdate(int(entry["client_id"]), float(entry["num_examples"]), read)


def _plain(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the array in native byte order and row-major, as safetensors writes memory as is."""
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.asarray(native, order="C")
