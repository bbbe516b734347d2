"""Main accuracy and attack success rate of every arm over the rounds."""

from __future__ import annotations

from collections.abc import Callable

from fl_shield.simulations.plots.axes import (
    EndLabel,
    count_rounds,
    name_line_ends,
    show_shares,
)
from fl_shield.simulations.plots.plot import Plot, new_figure
from fl_shield.simulations.plots.style import arm_looks
from fl_shield.simulations.run_folder import Round, RunFolder
from fl_shield.simulations.wording import percent

MAX_ROUNDS_WITH_MARKERS = 40


def main_accuracy(run: RunFolder) -> Plot | None:
    """Return the plot of main accuracy over rounds, or None if none was measured."""
    return _curves(
        run,
        lambda entry: entry.main_accuracy,
        name="main_accuracy",
        title="Main accuracy",
        how_to_read=(
            "Share of clean test samples that the global model classifies correctly. A shield "
            "that costs nothing stays on the line of the clean run."
        ),
    )


def attack_success_rate(run: RunFolder) -> Plot | None:
    """Return the plot of the attack success rate over rounds, or None if none was measured."""
    return _curves(
        run,
        lambda entry: entry.asr,
        name="attack_success_rate",
        title="Attack success rate",
        how_to_read=(
            "Share of triggered test samples of other classes that the global model gives the "
            "attacker's class. Low is good; the clean run shows what chance alone gives."
        ),
    )


def _curves(
    run: RunFolder,
    measure: Callable[[Round], float | None],
    *,
    name: str,
    title: str,
    how_to_read: str,
) -> Plot | None:
    curves = {}
    for arm in run.arms:
        points = [(entry.number, y) for entry in arm.rounds if (y := measure(entry)) is not None]
        if points:
            curves[arm.name] = points
    if not curves:
        return None
    looks = arm_looks(list(curves))
    with new_figure() as figure:
        axes = figure.subplots()
        labels = []
        for arm_name, points in curves.items():
            look, (_, end) = looks[arm_name], points[-1]
            axes.plot(
                [x for x, _ in points],
                [y for _, y in points],
                color=look.colour,
                linestyle=look.dashes,
                marker=look.marker if len(points) <= MAX_ROUNDS_WITH_MARKERS else None,
            )
            labels.append(EndLabel(end, f"{_label(arm_name)} {percent(end)}", look.colour))
        count_rounds(axes, [x for points in curves.values() for x, _ in points])
        show_shares(axes)
        name_line_ends(axes, labels)
    ends = ", ".join(
        f"{_label(arm_name)} {percent(points[-1][1])} after round {points[-1][0]}"
        for arm_name, points in curves.items()
    )
    return Plot(name, title, how_to_read, f"{title} over rounds: {ends}.", figure)


def _label(arm_name: str) -> str:
    return arm_name.replace("_", " ")
