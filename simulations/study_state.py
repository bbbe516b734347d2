"""Where the run folder of a cell stands: not begun, interrupted, finished, or damaged."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from fl_shield.errors import DataError
from fl_shield.simulations.arms import Arm
from fl_shield.simulations.run_folder import read_run_folder
from fl_shield.simulations.seen import detector_of
from fl_shield.simulations.settings import Settings

IRRELEVANT = (
    "output_root",
    "run_name",
    "round_timeout",
    "device",
    "engine",
    "simulation",
    "tracking",
    "seed",
    "scan_final_model",
)
"""Settings that do not change what a run comes to, or that its name already tells."""

SHOWN = 12
"""Digits of a digest that are shown."""

DAMAGED = "damaged"
"""The folder, within that of the study, to which damaged run folders are moved."""


class State(Enum):
    """Where a run folder stands."""

    ABSENT = "not begun"
    PARTIAL = "interrupted"
    FINISHED = "finished"
    BROKEN = "damaged"
    OTHER = "run with other settings"


def state_of(folder: Path, settings: Settings, arm: Arm) -> tuple[State, str]:
    """Return where the run folder of a cell stands, and what is wrong with it, if anything.

    Args:
        folder: The run folder, which need not exist.
        settings: What the cell is to be run with; of the seed only that it is in the folder's name.
        arm: The cell's one arm.
    """
    if not folder.exists():
        return State.ABSENT, ""
    try:
        run = read_run_folder(folder)
        config = yaml.safe_load(run.config_text)
    except DataError as error:
        return State.BROKEN, str(error)
    except yaml.YAMLError:
        return State.BROKEN, "config.yaml: damaged or cut short."
    if not isinstance(config, Mapping):
        return State.BROKEN, "config.yaml: missing or empty."
    difference = _difference(config, settings.config) or _other_detector(run.summary, settings)
    if difference:
        return State.OTHER, difference
    if not run.summary:
        # The summary comes with the end of an arm: without one, lines may be torn, and are redone.
        is_torn = any(sentence.startswith("summary.json") for sentence in run.damage)
        return (State.BROKEN, " ".join(run.damage)) if is_torn else (State.PARTIAL, "")
    if not run.finished:
        return State.PARTIAL, ""
    if run.damage:
        return State.BROKEN, " ".join(run.damage)
    played = run.arm(arm.name)
    numbers = [entry.number for entry in played.rounds] if played else []
    if numbers != list(range(settings.rounds + 1)):
        return State.BROKEN, f"arms/{arm.name}/rounds.jsonl: lacks rounds of {settings.rounds}."
    return State.FINISHED, ""


def move_aside(folder: Path) -> Path:
    """Move a damaged run folder to where a person can look at it; return its place."""
    home = folder.parent / DAMAGED
    home.mkdir(exist_ok=True)
    number = sum(1 for _ in home.glob(f"{folder.name}.*")) + 1
    return folder.rename(home / f"{folder.name}.{number}")


def _other_detector(summary: Mapping[str, Any], settings: Settings) -> str:
    """Return how the detector that a run was judged by differs from what its file holds now."""
    old, new = summary.get("detector"), detector_of(settings.config)
    if old is None or new is None or old == new:
        return ""
    return f"its detector had the weights {str(old)[:SHOWN]}…, and has {new[:SHOWN]}… now"


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> str:
    """Return the first setting that differs; what one side has not got yet is no difference."""
    for key in found:
        name = f"{prefix}{key}"
        if name in IRRELEVANT or name == "warm_start.checkpoint" or key not in wanted:
            continue
        old, new = found[key], wanted[key]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = _difference(old, new, f"{name}.")
            if inner:
                return inner
        elif old != new:
            return f"{name} was {old}, and is now {new}"
    return ""
