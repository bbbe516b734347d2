"""Many runs beside each other: one row a run, tables, plots and a page of them all."""

from fl_shield.simulations.reporting.known import read_known
from fl_shield.simulations.reporting.rows import Row, read_rows
from fl_shield.simulations.reporting.runs import report_runs, run_folders_in

__all__ = ["Row", "read_known", "read_rows", "report_runs", "run_folders_in"]
