"""What the parts of a run are called: by its study, or by the options they look like."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from fl_shield.simulations.composing import FOLDER
from fl_shield.simulations.study_job import CELL_FILE

OWN_DATA = {"image_folder": "root", "text_csv": "path"}
"""Options for data of one's own, and the setting whose last part is their name."""


def cell_words(folder: Path) -> Mapping[str, Any]:
    """Return what a study calls the parts of a run; empty for a run of no study, or if damaged."""
    try:
        words = json.loads((folder / CELL_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return words if isinstance(words, dict) else {}


def option_of(group: str, node: object) -> str:
    """Return the option of a group that a part of a configuration comes from, as far as one sees.

    Of the options with the same target, the one that has most settings in common: a run folder
    keeps the settings of its parts, not their names.

    Args:
        group: For example `"attack"`.
        node: The part, as the run's configuration has it.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        return ""
    found = _leaves(node)
    best, most = "", float("-inf")
    for name, option in _options(group).items():
        if option.get("_target_") != node["_target_"]:
            continue
        if any(key.endswith("_target_") and key not in found for key in option):
            continue  # it has a part that this one lacks
        likeness = 0.0
        for key, value in option.items():
            is_reference = isinstance(value, str) and "${" in value
            if not is_reference and key in found:
                weight = 100.0 if key.endswith("_target_") else 1.0
                likeness += weight if found[key] == value else -weight
        if likeness > most:
            best, most = name, likeness
    if best in OWN_DATA and node.get(OWN_DATA[best]):
        return Path(str(node[OWN_DATA[best]])).stem
    return best or str(node["_target_"]).rpartition(".")[2]


def defence_name(config: Mapping[str, Any]) -> str:
    """Return what stands against the attack: the defence, or where it is none, the strategy."""
    defence = option_of("defence", config.get("defence"))
    if defence != "none":
        return defence
    strategy = option_of("strategy", config.get("strategy"))
    return "none" if strategy == "fedavg" else strategy


@lru_cache
def _options(group: str) -> dict[str, dict[str, Any]]:
    options: dict[str, dict[str, Any]] = {}
    for file in sorted((FOLDER / group).glob("*.yaml")):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if isinstance(content, Mapping):
            options[file.stem] = {}
            for base in content.get("defaults", []):  # it may begin as another of its group
                if isinstance(base, str):
                    options[file.stem] |= options.get(base, {})
            options[file.stem] |= _leaves({k: v for k, v in content.items() if k != "defaults"})
    return options


def _leaves(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
