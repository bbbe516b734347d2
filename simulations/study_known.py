"""Cells of a study that were played elsewhere: their rows are known, and they are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fl_shield.simulations.reporting.known import attacked_cell
from fl_shield.simulations.reporting.rows import Row
from fl_shield.simulations.reporting.setup import setup_of
from fl_shield.simulations.settings import Settings
from fl_shield.simulations.study_cells import NO_DEFENCE
from fl_shield.simulations.study_job import Job


def left_to_play(
    jobs: Sequence[Job], settings_of: Callable[[Job], Settings], known: Sequence[Row]
) -> list[Job]:
    """Return the cells that no known row stands for.

    A row stands for a cell if it is that of a finished run with the same settings. The run without
    attack and defence is played again where an attack is left that no known row has shown to it.

    Args:
        jobs: The cells of a study.
        settings_of: Returns the settings of a cell.
        known: Rows of runs that were played elsewhere.
    """
    rows = {row.run: row for row in known if row.finished}
    left = {
        job.cell
        for job in jobs
        if (row := rows.get(job.folder.name)) is None
        or row.setup != setup_of(settings_of(job).config)
    }
    shown = {attacked_cell(row) for row in rows.values() if row.clean_asr is not None}
    unshown = {
        (cell.data, cell.seed)
        for cell in left
        if cell.attackers and attacked_cell(cell) not in shown
    }
    return [
        job
        for job in jobs
        if job.cell in left
        or (
            not job.cell.attackers
            and job.cell.defence == NO_DEFENCE
            and (job.cell.data, job.cell.seed) in unshown
        )
    ]
