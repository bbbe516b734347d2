"""Plots of a run: what the attack did, what the shield saw, and what it cost.

Importing this package imports matplotlib; import it only where something is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fl_shield.simulations.plots.cost import cost
from fl_shield.simulations.plots.curves import attack_success_rate, main_accuracy
from fl_shield.simulations.plots.detection import detection_rates
from fl_shield.simulations.plots.evidence import evidence
from fl_shield.simulations.plots.final_models import final_models
from fl_shield.simulations.plots.plot import Plot
from fl_shield.simulations.plots.scores import score_distribution, scores_over_rounds
from fl_shield.simulations.run_folder import RunFolder, read_run_folder

# In the order in which a report shows them. Each returns None when the run has nothing to show.
PLOTS: tuple[Callable[[RunFolder], Plot | None], ...] = (
    attack_success_rate,
    main_accuracy,
    detection_rates,
    cost,
    score_distribution,
    scores_over_rounds,
    evidence,
    final_models,
)


def plots_of(run: RunFolder) -> list[Plot]:
    """Return every plot that the run has data for."""
    return [plot for draw in PLOTS if (plot := draw(run)) is not None]


def draw_all(run_folder: Path) -> list[Path]:
    """Draw every plot of a run, finished or not, into `<run>/plots`, as PNG and as SVG.

    Args:
        run_folder: The folder that a simulation wrote.

    Returns:
        The files written.

    Raises:
        DataError: if `run_folder` is not the folder of a run.
    """
    run = read_run_folder(run_folder)
    return [path for plot in plots_of(run) for path in plot.save(run.path / "plots")]


__all__ = ["PLOTS", "Plot", "draw_all", "plots_of"]
