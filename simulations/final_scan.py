"""The scan at the end of a run that was told `scan_final_model=true`.

The run is finished when it begins: whatever goes wrong here is said, and costs nobody the results.
"""

from __future__ import annotations

import logging
from pathlib import Path

from rich.console import Console

from fl_shield.errors import FlShieldError, StateError
from fl_shield.simulations.audit_models import Choices
from fl_shield.simulations.audit_run import scan_run
from fl_shield.simulations.final_models import FOUND, audit_command, read_final_models
from fl_shield.simulations.settings import Settings

_log = logging.getLogger("flwr.fl_shield")


def scan_finished(folder: Path, settings: Settings, console: Console) -> None:
    """Scan the final models of a finished run, unless that has been done.

    Args:
        folder: The run folder.
        settings: The run's settings.
        console: Where to report to.
    """
    if _is_done(folder, settings):
        return
    console.print("Scanning the final models for backdoors …", highlight=False)
    reason = ""
    try:
        found = scan_run(folder, Choices(), show=False)
    except FlShieldError as error:
        reason = str(error)
    except Exception as error:
        _log.exception("The scan of the final models ended early.")
        reason = f"{type(error).__name__}: {error}"
    if reason:
        text = f"The final models were not scanned: {reason} Again: {audit_command(folder)}"
    else:
        is_judged = any(model.suspected is not None for model in found.models)
        verdict = f" Suspected: {', '.join(found.suspects) or 'none'}." if is_judged else ""
        text = f"Findings on the final models: {folder / FOUND}.{verdict}"
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _is_done(folder: Path, settings: Settings) -> bool:
    """Return whether the findings of all arms' last round are there."""
    try:
        found = read_final_models(folder)
    except StateError:
        return False
    rounds = {} if found is None else {model.name: model.round for model in found.models}
    return all(rounds.get(arm.name) == settings.rounds for arm in settings.arms)
