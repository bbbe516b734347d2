"""A detector on disk: its weights in `detector.safetensors`, and `detector.json`, its card.

The card names format, version, columns and their units, calibration, and what the detector has
seen in training. It holds the SHA-256 of the weights, and the weights a fingerprint of the
columns, so that files of two detectors are never taken for one. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from fl_shield.atomic import draft_of
from fl_shield.detector.features import FeatureSpec
from fl_shield.detector.meta_detector import Calibration, MetaDetector
from fl_shield.detector.set_network import SetNetwork
from fl_shield.errors import ConfigurationError, StateError, expected

FORMAT = "fl_shield.detector"
VERSION = 3
WEIGHTS = "detector.safetensors"
CARD = "detector.json"

RETRAIN = "Train one with this version (fl-shield meta-train), or take the one in the package."

_WRITTEN = ("format", "version", "sha256", "columns", "units", "networks")
"""Entries of the card that `save_detector` writes; a caller's card cannot set them."""


def save_detector(
    folder: str | Path,
    networks: Sequence[SetNetwork],
    spec: FeatureSpec,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write a detector and return its folder; an earlier detector there is replaced.

    Args:
        folder: Where to; it is created.
        networks: One or more trained networks.
        spec: Columns and units they were trained with.
        card: JSON-ready facts of the training. Two entries have a meaning: `name`, what logs call
            the detector, before the digits that its SHA-256 begins with; and `calibration` with
            the numbers of `Calibration`, of which those left out have their defaults.

    Raises:
        ConfigurationError: if the parts do not fit together, or the card is not JSON-ready.
    """
    facts = dict(card or {})
    clash = sorted(set(facts) & set(_WRITTEN))
    if clash:
        raise ConfigurationError(
            expected("card", f"without {', '.join(_WRITTEN)}", f"{clash[0]!r} as well")
        )
    calibration = _calibration(facts.get("calibration", {}), ConfigurationError, "The card")
    MetaDetector(networks, spec, calibration)  # what cannot be loaded is not written
    tensors = {
        f"{index}.{name}": tensor.detach().cpu().float().contiguous()
        for index, network in enumerate(networks)
        for name, tensor in network.state_dict().items()
    }
    metadata = {"format": FORMAT, "version": str(VERSION), "columns": _fingerprint(spec)}
    weights = _in_order(save_tensors(tensors, metadata))
    facts |= {
        "format": FORMAT,
        "version": VERSION,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "columns": list(spec.names),
        "units": list(spec.units),
        "networks": [_size(network) for network in networks],
        "calibration": asdict(calibration),
    }
    try:
        text = json.dumps(facts, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"The card cannot be written as JSON ({error}).") from error
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    _replace(target / WEIGHTS, weights)
    _replace(target / CARD, text.encode())
    return target


def own_facts(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a card that `save_detector` was given, without those it writes itself."""
    return {key: value for key, value in card.items() if key not in _WRITTEN}


def load_detector(folder: str | Path) -> MetaDetector:
    """Return the detector in a folder.

    Raises:
        ConfigurationError: if the folder holds no detector.
        StateError: naming the file that is damaged, of another version, or of another detector.
    """
    source = Path(folder)
    card = read_card(source)
    calibration, spec = _parse_card(source / CARD, card)
    weights = source / WEIGHTS
    try:
        content = weights.read_bytes()
        with safe_open(weights, framework="pt") as archive:
            metadata = archive.metadata() or {}
        tensors = load_tensors(content)
    except (OSError, SafetensorError) as error:
        raise StateError(f"{weights} is missing or damaged ({error}). {RETRAIN}") from error
    _check_version(weights, metadata.get("format"), metadata.get("version"), str(VERSION))
    if hashlib.sha256(content).hexdigest() != card["sha256"]:
        raise StateError(
            f"{weights} does not belong to {CARD}: its SHA-256 is not the one in the card. Copy "
            "both files of a detector together."
        )
    if metadata.get("columns") != _fingerprint(spec):
        raise StateError(
            f"{source / CARD} does not belong to {WEIGHTS}: columns and units are not those that "
            "the weights were trained with. Copy both files of a detector together."
        )
    networks = _networks(source, card["networks"], spec, tensors)
    name = f"{card.get('name', source.name)} {str(card['sha256'])[:8]}"
    return MetaDetector(networks, spec, calibration, card, name)


def read_card(folder: str | Path) -> dict[str, Any]:
    """Return the card of a detector, its format and version checked.

    Raises:
        ConfigurationError: if the folder holds no detector.
        StateError: if the card is damaged or of another version.
    """
    file = Path(folder) / CARD
    if not file.is_file():
        raise ConfigurationError(
            expected("detector", f"a folder with {CARD} and {WEIGHTS}", str(folder))
        )
    try:
        card = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise StateError(f"{file} is damaged: it is no JSON ({error}).") from error
    if not isinstance(card, dict):
        raise StateError(f"{file} is no card of a detector.")
    _check_version(file, card.get("format"), card.get("version"), VERSION)
    return card


def _parse_card(file: Path, card: Mapping[str, Any]) -> tuple[Calibration, FeatureSpec]:
    missing = [key for key in (*_WRITTEN, "calibration") if key not in card]
    if missing:
        raise StateError(f"{file} is damaged: it has no {missing[0]!r}.")
    calibration = _calibration(card["calibration"], StateError, f"{file} is damaged: it")
    try:
        spec = FeatureSpec(
            tuple(map(str, card["columns"])), tuple(float(unit) for unit in card["units"])
        )
    except (TypeError, ValueError) as error:
        raise StateError(f"{file} is damaged: columns or units are no lists ({error}).") from error
    if len(spec.names) != len(spec.units) or not spec.names:
        raise StateError(
            f"{file} is damaged: {len(spec.names)} columns and {len(spec.units)} units."
        )
    if not all(math.isfinite(unit) and unit > 0.0 for unit in spec.units):
        raise StateError(f"{file} is damaged: a unit is not a number above 0.")
    return calibration, spec


def _calibration(values: object, error: type[Exception], who: str) -> Calibration:
    if not isinstance(values, Mapping) or set(values) - set(asdict(Calibration())):
        raise error(
            f"{who} needs a `calibration` with offset, scale, threshold and even, got {values}."
        )
    try:
        return Calibration(**values)
    except ConfigurationError as problem:
        raise error(f"{who} has a calibration that cannot be used: {problem}") from problem


def _check_version(file: Path, form: object, version: object, readable: object) -> None:
    if form != FORMAT:
        raise StateError(f"{file} is no detector of fl_shield. {RETRAIN}")
    if version != readable:
        raise StateError(f"{file} has version {version}; this fl_shield reads {VERSION}. {RETRAIN}")


def _networks(
    folder: Path, sizes: object, spec: FeatureSpec, tensors: Mapping[str, Tensor]
) -> list[SetNetwork]:
    try:
        with torch.device("meta"):  # costs no memory, and draws nothing from torch's generator
            networks = [
                SetNetwork(
                    spec.num_features,
                    hidden=int(size["hidden"]),
                    pools=int(size["pools"]),
                    heads=int(size["heads"]),
                    reads=torch.ones(spec.num_features) if size["expert"] else None,
                )
                for size in sizes  # type: ignore[attr-defined]
            ]
        wanted = {f"{i}.{name}" for i, n in enumerate(networks) for name in n.state_dict()}
        if not networks or wanted != set(tensors):
            raise ValueError("the networks in the card are not those in the weights")
        for index, network in enumerate(networks):
            state = {name: tensors[f"{index}.{name}"] for name in network.state_dict()}
            network.load_state_dict(state, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise StateError(f"{folder / CARD} does not fit {WEIGHTS}: {reason}.") from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise StateError(f"{folder / WEIGHTS} is damaged: a weight is not finite. {RETRAIN}")
    return networks


def _size(network: SetNetwork) -> dict[str, int | bool]:
    """Return what it takes to build a network whose weights are then loaded."""
    sizes = {"hidden": network.hidden, "pools": network.pools, "heads": network.heads}
    return sizes | {"expert": network.is_expert}


def _in_order(archive: bytes) -> bytes:
    """Return safetensors with the entries of the header sorted.

    The library shuffles the metadata; a detector saved twice must be the same file, as its SHA-256
    tells detectors apart.
    """
    start = 8 + int.from_bytes(archive[:8], "little")
    header = json.dumps(json.loads(archive[8:start]), sort_keys=True, separators=(",", ":"))
    aligned = header.encode().ljust(-(-len(header.encode()) // 8) * 8)
    return len(aligned).to_bytes(8, "little") + aligned + archive[start:]


def _fingerprint(spec: FeatureSpec) -> str:
    text = json.dumps([list(spec.names), list(spec.units)])
    return hashlib.sha256(text.encode()).hexdigest()


def _replace(file: Path, content: bytes) -> None:
    with draft_of(file) as draft:
        draft.write_bytes(content)
