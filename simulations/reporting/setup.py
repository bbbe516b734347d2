"""What a run was set to do, as a short digest: it tells whether a row still is what it would be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl_shield.simulations.seen import detector_of
from fl_shield.simulations.study_state import IRRELEVANT

LENGTH = 12
"""Hexadecimal digits of a digest."""


def setup_of(config: Mapping[str, Any], detector: str | None = None) -> str:
    """Return a digest of the settings that decide what a run comes to; the seed is not among them.

    Machines keep their files in different places: of a path the last name counts, and of a
    detector its weights.

    Args:
        config: The composed configuration of a run, as `config.yaml` holds it.
        detector: Digest of the weights that the run was judged by; None for those that its
            detector has now.

    >>> here, there = ({"rounds": 3, "data": {"root": f"/{at}/mnist"}} for at in ("home", "mnt"))
    >>> setup_of(here) == setup_of(there), setup_of(here) == setup_of({**here, "rounds": 4})
    (True, False)
    """
    kept = {key: value for key, value in config.items() if key not in IRRELEVANT}
    weights = detector or detector_of(config)
    if weights is not None:
        kept["defence"] = {**kept["defence"], "detector": weights}
    text = json.dumps(_without_places(kept), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def _without_places(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_places(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_places(entry) for entry in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value
