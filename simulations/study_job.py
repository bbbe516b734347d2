"""A cell, played in one process: from its overrides to a finished run folder."""

from __future__ import annotations

import json
import logging
import os
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from fl_shield.atomic import draft_of
from fl_shield.errors import FlShieldError, StateError
from fl_shield.simulations.composing import compose_config
from fl_shield.simulations.settings import Settings, settings_from
from fl_shield.simulations.study_cells import Cell

CELL_FILE = "cell.json"
"""Which cell a run folder is, in its study's words."""

REFERENCE_FILE = "reference.json"
"""Attack success rates of a clean run's final model under every attack of the study."""


class CellError(FlShieldError):
    """A cell broke off; its finished rounds are kept."""


@dataclass(frozen=True)
class Job:
    """A cell to play.

    Attributes:
        study: Name of the study.
        cell: The cell.
        overrides: What `fl-shield simulate` would be told.
        folder: Its run folder.
        is_resume: Whether the folder holds a part of the run.
        config_dir: The user's own options, None without any.
    """

    study: str
    cell: Cell
    overrides: tuple[str, ...]
    folder: Path
    is_resume: bool = False
    config_dir: str | None = None

    def settings(self) -> Settings:
        """Return the checked settings."""
        return settings_from(compose_config(self.overrides, self.config_dir))


@dataclass(frozen=True)
class Reference:
    """A clean run whose final model is to be held against attacks.

    Attributes:
        folder: Its run folder.
        attacks: What each attack is called, to the overrides of one of its cells.
        config_dir: The user's own options, None without any.
    """

    folder: Path
    attacks: Mapping[str, tuple[str, ...]]
    config_dir: str | None = None


def play(job: Job) -> dict[str, Any]:
    """Play a cell to its end and return its figures, `seconds` of it all among them.

    Raises:
        FlShieldError: if the settings do not fit, or what the folder holds is damaged.
        CellError: if it broke off for another reason; the traceback is in the folder.
    """
    started = time.monotonic()
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    import torch

    torch.set_num_threads(1)
    from fl_shield.simulations.client_app import make_client_app
    from fl_shield.simulations.progress import PlainLines
    from fl_shield.simulations.server_app import prepare, run_arms
    from fl_shield.simulations.simulate import flower_log
    from fl_shield.simulations.study_grid import OneProcessGrid
    from fl_shield.simulations.summary import write_summary

    settings = job.settings()
    federation, tracker = prepare(settings, job.folder)
    _describe(job)
    with (
        flower_log(job.folder / "flower.log"),
        (job.folder / "progress.log").open("a", encoding="utf-8") as stream,
    ):
        console = Console(file=stream, width=100)
        display = PlainLines(console)
        try:
            grid = OneProcessGrid(make_client_app(settings), settings.num_clients)
            run_arms(grid, federation, job.folder, tracker, display)
        except FlShieldError:
            raise
        except Exception as error:
            logging.getLogger("flwr").exception("The cell ended early.")
            raise CellError(
                f"{type(error).__name__}: {str(error).strip() or 'no message'} "
                f"(the traceback is in {job.folder / 'flower.log'})"
            ) from error
        if settings.scan_final_model:
            from fl_shield.simulations.final_scan import scan_finished

            scan_finished(job.folder, settings, console)
    summary = write_summary(job.folder, settings)
    figures: dict[str, Any] = summary["runs"][job.cell.arm.name]
    return {**figures, "seconds": time.monotonic() - started}


def measure_reference(reference: Reference) -> dict[str, float | None]:
    """Hold the final model of a clean run against attacks that it never met; returns their ASR.

    One clean run serves all attacks: they differ in what the model is shown at the end only.

    Raises:
        StateError: if the clean run has no checkpoint of its end.
    """
    from fl_shield.metrics.backdoor import attack_success_rate
    from fl_shield.simulations.federation import build_federation
    from fl_shield.strategies.checkpoint import read_checkpoint

    file = reference.folder / REFERENCE_FILE
    rates = read_reference(reference.folder)
    checkpoint = read_checkpoint(reference.folder / "arms" / "clean" / "checkpoint")
    if checkpoint is None:
        raise StateError(f"{reference.folder} holds no checkpoint of its clean run.")
    for name, overrides in reference.attacks.items():
        if name not in rates:
            settings = settings_from(compose_config(overrides, reference.config_dir))
            federation = build_federation(settings)
            model = federation.new_model()
            model.load_state_dict(checkpoint.arrays.to_torch_state_dict())
            model.eval()
            attack = federation.attack_against(model, settings.rounds)
            rates[name] = attack_success_rate(model, federation.task.test, attack)
    with draft_of(file) as draft:
        draft.write_text(json.dumps(rates, indent=1) + "\n", encoding="utf-8")
    return rates


def read_reference(folder: Path) -> dict[str, float | None]:
    """Return what `measure_reference` wrote into a run folder; empty without it, or if damaged."""
    try:
        rates = json.loads((folder / REFERENCE_FILE).read_text(encoding="utf-8"))
        return {str(name): None if rate is None else float(rate) for name, rate in rates.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _describe(job: Job) -> None:
    record = {"study": job.study, **asdict(job.cell)}
    (job.folder / CELL_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    command = shlex.join(["fl-shield", "simulate", *job.overrides])
    (job.folder / "command.txt").write_text(f"{command}\n", encoding="utf-8")
