"""Checkpoints of a training: one safetensors file with tensors and, as JSON, everything else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fl_shield.atomic import draft_of
from fl_shield.errors import StateError
from fl_shield.meta.course import Course

FORMAT = "fl_shield.meta_training"

LOSSES = "losses"
"""Tensor of the losses of the steps taken; checkpoints of before it was kept have none."""


def save_course(file: Path, course: Course) -> None:
    """Write a checkpoint, whole or not at all."""
    tensors = {f"network.{k}": t for k, t in course.network.state_dict().items()}
    optimiser = course.optimiser.state_dict()
    for index, entries in optimiser["state"].items():
        tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in entries.items()}
    tensors["random.torch"] = torch.get_rng_state()
    tensors["random.columns"] = course.generator.get_state()
    tensors[LOSSES] = torch.tensor(course.losses, dtype=torch.float64)
    facts = {
        "format": FORMAT,
        "training": _fingerprint(course),
        "done": course.done,
        "groups": optimiser["param_groups"],
        "schedule": _plain(course.schedule.state_dict()),
        "random": course.rng.bit_generator.state,
    }
    contiguous = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    with draft_of(file) as draft:
        save_file(contiguous, draft, metadata={"facts": json.dumps(facts)})


def load_course(file: Path, course: Course) -> None:
    """Bring a course to where a checkpoint of the same training stands.

    Raises:
        StateError: if the file is damaged, or of a training with other settings or columns.
    """
    try:
        with safe_open(file, framework="pt") as archive:
            facts = json.loads((archive.metadata() or {})["facts"])
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
        same = facts["format"] == FORMAT and facts["training"] == _fingerprint(course)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise StateError(f"{file} is damaged: {error!r}. Delete it to start again.") from error
    if not same:
        raise StateError(
            f"{file} is of a training with other settings or other rounds. Name another folder, or "
            "delete it to start again."
        )
    try:
        course.network.load_state_dict(_part(tensors, "network."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimiser.").items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
        course.optimiser.load_state_dict({"state": state, "param_groups": facts["groups"]})
        course.schedule.load_state_dict(facts["schedule"])
        course.rng.bit_generator.state = facts["random"]
        course.generator.set_state(tensors["random.columns"])
        torch.set_rng_state(tensors["random.torch"])
        course.losses = tensors[LOSSES].tolist() if LOSSES in tensors else []
        course.done = int(facts["done"])
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise StateError(f"{file} is damaged: {error!r}. Delete it to start again.") from error


def read_losses(file: Path) -> dict[int, float]:
    """Return the losses that a checkpoint holds, step (from 1) to loss.

    Raises:
        StateError: if the file is missing or damaged.
    """
    try:
        with safe_open(file, framework="pt") as archive:
            done = int(json.loads((archive.metadata() or {})["facts"])["done"])
            losses = archive.get_tensor(LOSSES).tolist() if LOSSES in archive.keys() else []  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise StateError(f"{file} is damaged: {error!r}. Delete it to start again.") from error
    return dict(enumerate(losses, start=done - len(losses) + 1))


def _fingerprint(course: Course) -> str:
    text = json.dumps([asdict(course.settings), course.spec.names, course.spec.units])
    return hashlib.sha256(text.encode()).hexdigest()


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Return what of a schedule's state is JSON; the rest are functions that it makes itself."""
    kept = {}
    for key, value in state.items():
        try:
            json.dumps(value)
        except TypeError:
            continue
        kept[key] = value
    return kept
