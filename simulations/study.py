"""`fl-shield study`: the cells of a grid, in parallel, each once, and a report of them all.

What is finished is skipped, what was interrupted goes on, what is damaged is named and run again,
and what fails is named at the end. Ctrl-C, or the night's end, costs the rounds under way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig
from rich.console import Console

from fl_shield.errors import ConfigurationError, StateError
from fl_shield.simulations.in_parallel import in_parallel
from fl_shield.simulations.settings import Settings
from fl_shield.simulations.study_cells import NO_DEFENCE
from fl_shield.simulations.study_job import (
    Job,
    Reference,
    measure_reference,
    play,
    read_reference,
)
from fl_shield.simulations.study_plan import Plan, check_cells, plan_of
from fl_shield.simulations.study_progress import StudyProgress
from fl_shield.simulations.study_state import State, move_aside, state_of

if TYPE_CHECKING:
    from fl_shield.simulations.reporting import Row

FAILED = 1
"""Exit status of a study in which a cell failed."""

SHOWN = 5
"""Cells that a message names before it only counts them."""

SettingsOf = Callable[[Job], Settings]


def study(
    config: DictConfig,
    console: Console,
    cell_overrides: Sequence[str] = (),
    config_dir: str | None = None,
) -> int:
    """Run what is left of a study and report on all of it; returns an exit status.

    Args:
        config: The study's composed configuration.
        console: Where to report to.
        cell_overrides: Overrides of `fl-shield simulate` for every cell.
        config_dir: The user's own options, None without any.

    Raises:
        ConfigurationError: before anything runs, if a cell cannot be run or its folder holds a run
            with other settings.
    """
    # Here, as the package draws plots: naming the cells needs none.
    from fl_shield.simulations.reporting import read_known
    from fl_shield.simulations.study_known import left_to_play

    plan = plan_of(config, cell_overrides, config_dir)
    with console.status(f"Checking {len(plan.jobs)} cells …"):
        settings = check_cells(plan)
    warm_settings = {job.cell.data: job.settings() for job in plan.warm}

    def of_warm(job: Job) -> Settings:
        return warm_settings[job.cell.data]

    def of_cell(job: Job) -> Settings:
        return settings[job.cell.without_seed]

    known = [] if config.known is None else read_known(Path(config.known).expanduser())
    left = left_to_play(plan.jobs, of_cell, known)
    elsewhere = f" ({len(plan.jobs) - len(left)} known)" if known else ""
    console.print(
        f"{plan.name}: {len(plan.jobs)} cells{elsewhere}, {plan.workers} at a time → {plan.folder}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    _refuse_others(plan.warm, of_warm)
    _refuse_others(plan.jobs, of_cell)
    needed = {(job.cell.data, job.cell.seed) for job in left}
    warm_jobs = [job for job in plan.warm if (job.cell.data, job.cell.seed) in needed]
    failures = _play_all(plan, warm_jobs, of_warm, "clean starts", console)
    started = {
        (job.cell.data, job.cell.seed)
        for job in warm_jobs
        if state_of(job.folder, of_warm(job), job.cell.arm)[0] is State.FINISHED
    }
    jobs = [
        job
        for job in left
        if not any(job.cell.data == warm.cell.data for warm in plan.warm)
        or (job.cell.data, job.cell.seed) in started
    ]
    failures += _play_all(plan, jobs, of_cell, plan.name, console)
    failures += _measure_references(plan, of_cell, console)
    again = {job.folder.name for job in left}
    _report(plan, console, [row for row in known if row.run not in again])
    for name, error in failures:
        console.print(f"{name} failed: {error}", highlight=False, soft_wrap=True, markup=False)
    if len(jobs) < len(left):
        console.print(
            f"{len(left) - len(jobs)} cells wait for a clean start that failed.",
            highlight=False,
        )
    if failures:
        console.print("The same command tries again what failed, and nothing else.")
    return FAILED if failures else 0


def list_cells(
    config: DictConfig,
    console: Console,
    cell_overrides: Sequence[str] = (),
    config_dir: str | None = None,
) -> int:
    """Print the name of every cell and how many there are; runs nothing."""
    plan = plan_of(config, cell_overrides, config_dir)
    for job in plan.jobs:
        console.print(job.cell.name, highlight=False, soft_wrap=True)
    console.print(f"{len(plan.jobs)} cells", highlight=False)
    return 0


def _refuse_others(jobs: Sequence[Job], settings_of: SettingsOf) -> None:
    """Raise if a cell's folder holds a run that was made with other settings."""
    others = []
    for job in jobs:
        state, what = state_of(job.folder, settings_of(job), job.cell.arm)
        if state is State.OTHER:
            others.append(f"{job.folder.name}: {what}")
    if others:
        more = [f"and {len(others) - SHOWN} more"] if len(others) > SHOWN else []
        raise ConfigurationError(
            "The folder of the study holds runs with other settings. Choose another name=… or "
            "folder=…, or remove them.\n" + "\n".join([*others[:SHOWN], *more])
        )


def _todo(jobs: Sequence[Job], settings_of: SettingsOf, console: Console) -> list[Job]:
    """Return what is left to run; damaged folders are named and moved aside."""
    todo = []
    for job in jobs:
        state, what = state_of(job.folder, settings_of(job), job.cell.arm)
        if state is State.BROKEN:
            _make_way(job, what, console)
        if state is not State.FINISHED:
            todo.append(replace(job, is_resume=state is State.PARTIAL))
    return todo


def _make_way(job: Job, what: str, console: Console) -> None:
    place = move_aside(job.folder)
    console.print(
        f"{job.folder} is damaged, lies in {place} now, and is run again: {what}",
        highlight=False, soft_wrap=True, markup=False,
    )  # fmt: skip


def _play_all(
    plan: Plan, jobs: Sequence[Job], settings_of: SettingsOf, title: str, console: Console
) -> list[tuple[str, Exception]]:
    """Play what is left of some cells; returns those that failed, each with why."""
    todo = _todo(jobs, settings_of, console)
    failures: list[tuple[str, Exception]] = []
    if not todo:
        return failures
    with StudyProgress(console, title, len(jobs), len(jobs) - len(todo)) as progress:
        again: list[Job] = []
        for job, outcome in in_parallel(play, todo, plan.workers, plan.gpus):
            if isinstance(outcome, StateError) and job.is_resume:
                _make_way(job, str(outcome), console)
                again.append(replace(job, is_resume=False))
            elif isinstance(outcome, Exception):
                failures.append((job.folder.name, outcome))
                progress.failed(job.folder.name, outcome)
            else:
                progress.finished(job.folder.name, outcome)
        for job, outcome in in_parallel(play, again, plan.workers, plan.gpus):
            if isinstance(outcome, Exception):
                failures.append((job.folder.name, outcome))
                progress.failed(job.folder.name, outcome)
            else:
                progress.finished(job.folder.name, outcome)
    return failures


def _measure_references(
    plan: Plan, settings_of: SettingsOf, console: Console
) -> list[tuple[str, Exception]]:
    """Hold the clean runs against every attack of their data set and seed, where not yet done."""
    todo = []
    for job in plan.jobs:
        if job.cell.attackers or job.cell.defence != NO_DEFENCE:
            continue
        attacks = {
            other.cell.configuration: other.overrides
            for other in plan.jobs
            if other.cell.attackers
            and (other.cell.data, other.cell.seed) == (job.cell.data, job.cell.seed)
        }
        is_finished = state_of(job.folder, settings_of(job), job.cell.arm)[0] is State.FINISHED
        if is_finished and not attacks.keys() <= read_reference(job.folder).keys():
            todo.append(Reference(job.folder, attacks, job.config_dir))
    with console.status("Holding clean runs against the attacks …"):
        return [
            (f"{reference.folder.name} against the attacks", outcome)
            for reference, outcome in in_parallel(measure_reference, todo, plan.workers, plan.gpus)
            if isinstance(outcome, Exception)
        ]


def _report(plan: Plan, console: Console, known: Sequence[Row]) -> None:
    from fl_shield.simulations.reporting import report_runs

    begun = [job.folder for job in plan.jobs if (job.folder / "arms").is_dir()]
    if begun or known:
        report_runs(begun, plan.folder / "report", console, title=plan.name, known=known)
