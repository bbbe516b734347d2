"""What a run came to: `summary.json`, and the table that a person reads."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from fl_shield.atomic import draft_of
from fl_shield.simulations.arms import ARMS
from fl_shield.simulations.run_folder import Arm, Round, read_run_folder
from fl_shield.simulations.seen import detector_of
from fl_shield.simulations.settings import Settings
from fl_shield.simulations.wording import percent

PACKAGES = (
    "fl-shield",
    "flwr",
    "ray",
    "torch",
    "torchvision",
    "numpy",
    "scikit-learn",
    "hydra-core",
)

LATE = 3
"""Late means are over the last of so many parts of a run."""


def write_summary(folder: Path, settings: Settings) -> dict[str, Any]:
    """Write and return the summary of a run folder, finished or not.

    Figures of the last round are those of the final model, `late_…` means over the last third of
    the rounds, which say more of a model that sways; detection rates pool all updates of all
    rounds, and times are means over rounds. `detector` is the digest of the weights that the run
    was judged by: the file may become another one.
    """
    run = read_run_folder(folder)
    arms = {arm.name: arm for arm in run.arms}
    done = [name for name in arms if _finished(arms[name], settings.rounds)]
    summary = {
        "finished": all(arm.name in done for arm in settings.arms),
        "seed": settings.seed,
        "config": settings.config,
        "detector": detector_of(settings.config),
        "versions": _versions(),
        "runs": {
            arm.name: arm_figures(arms[arm.name]) for arm in settings.arms if arm.name in arms
        },
    }
    with draft_of(folder / "summary.json") as draft:
        draft.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def summary_table(summary: dict[str, Any]) -> Table:
    """Return the headline table of a summary, an arm a row."""
    table = Table(title=f"seed {summary['seed']}", title_justify="left")
    table.add_column("run")
    for heading in ("main accuracy", "attack success", "TPR", "FPR", "s / round", "shield share"):
        table.add_column(heading, justify="right")
    for name, figures in summary["runs"].items():
        seconds = figures["seconds_per_round"]
        table.add_row(
            ARMS[name].title,
            *(percent(figures[key]) for key in ("main_accuracy", "asr", "tpr", "fpr")),
            "–" if seconds is None else f"{seconds:.2f}",
            percent(figures["shield_share"]),
        )
    return table


def _finished(arm: Arm, rounds: int) -> bool:
    return bool(arm.rounds) and arm.rounds[-1].number >= rounds


def arm_figures(arm: Arm) -> dict[str, Any]:
    """Return the figures of an arm, finished or not, as `write_summary` describes them."""
    last = arm.rounds[-1] if arm.rounds else Round(0)
    trained = [entry for entry in arm.rounds if entry.number > 0]
    late = trained[-ceil(len(trained) / LATE) :]
    seconds = _known(entry.seconds for entry in trained)
    shield = _known(entry.shield_seconds for entry in trained)
    tpr, fpr = _pooled_rates(arm)
    return {
        "main_accuracy": last.main_accuracy,
        "asr": last.asr,
        "highest_asr": max(_known(entry.asr for entry in trained), default=None),
        "late_main_accuracy": _mean(_known(entry.main_accuracy for entry in late)),
        "late_asr": _mean(_known(entry.asr for entry in late)),
        "tpr": tpr,
        "fpr": fpr,
        "shield_share": sum(shield) / sum(seconds) if shield and sum(seconds) > 0 else None,
        "seconds_per_round": _mean(seconds),
        "rounds": len(trained),
    }


def _pooled_rates(arm: Arm) -> tuple[float | None, float | None]:
    """Return the share of malicious and of benign updates of the whole run that were flagged."""
    rates: list[float | None] = []
    for malicious in (True, False):
        flags = [
            verdict.flagged
            for verdict in arm.verdicts
            if verdict.score is not None and arm.is_malicious(verdict.node_id) is malicious
        ]
        rates.append(sum(flags) / len(flags) if flags else None)
    return rates[0], rates[1]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
