"""Cost against quality: what a defence takes, and what it leaves of the attack."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox

from fl_shield.simulations.plots.axes import show_shares
from fl_shield.simulations.plots.plot import Plot, new_figure
from fl_shield.simulations.reporting.curves import defence_colours
from fl_shield.simulations.reporting.rows import Row
from fl_shield.simulations.wording import percent

PLACES = ((5, 3, "left"), (5, -9, "left"), (-5, 3, "right"), (-5, -9, "right"), (0, 7, "center"))
"""Where the name of a point may stand, in points from it: at the first that is free."""

POINT = 5
"""Pixels around the middle of a point that are not free."""


def compared(cells: Mapping[str, set[object]]) -> tuple[list[str], set[object]]:
    """Return which defences to compare, and on which cells: those that all of them were run in.

    Whoever was run in few cells narrows them for all. Of the choices that leave out those with the
    fewest, the one with the most runs is taken, and of such the one with the most defences.

    Args:
        cells: Cells that each of two defences or more was run in.

    >>> compared({"none": {1, 2, 3}, "flame": {1, 2}, "krum": {3}})
    (['none', 'flame'], {1, 2})
    """
    order = sorted(cells, key=lambda name: -len(cells[name]))
    choices = [
        (order[:count], set.intersection(*(set(cells[name]) for name in order[:count])))
        for count in range(2, len(order) + 1)
    ]
    return max(choices, key=lambda choice: (len(choice[0]) * len(choice[1]), len(choice[0])))


def cost_against_quality(rows: Sequence[Row]) -> Plot | None:
    """Return each defence's time a round, as a multiple of none, against the ASR that it leaves.

    A run is compared with the undefended run of the same data, attack, share and seed; None when
    there is no such pair. Defences are shown on cells that all of them were run in: means over
    others would compare easy attacks with hard ones.
    """
    bare = {
        (*row.cell[:4], row.seed): row.seconds_per_round for row in rows if row.defence == "none"
    }
    points: dict[str, dict[object, tuple[float, float]]] = {}
    for row in rows:
        cell = (*row.cell[:4], row.seed)
        base = bare.get(cell)
        if row.attackers and base and row.seconds_per_round and row.final_asr is not None:
            found = points.setdefault(row.defence, {})
            found[cell] = (row.seconds_per_round / base, row.final_asr)
    if set(points) <= {"none"}:
        return None
    names, cells = compared({name: set(found) for name, found in points.items()})
    means = {
        name: (
            statistics.fmean(points[name][cell][0] for cell in cells),
            statistics.fmean(points[name][cell][1] for cell in cells),
        )
        for name in names
    }
    colours = defence_colours(list(means))
    with new_figure(3.4) as figure:
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.margins(x=0.2)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        for name, point in means.items():
            axes.scatter(*point, s=34, color=colours[name], zorder=3)
        show_shares(axes)
        axes.set_xlabel("time of a round, as a multiple of that without defence")
        axes.set_ylabel("final attack success")
        _name_points(axes, means, colours)
    spoken = ", ".join(f"{n} {x:.2f} times, {percent(y)}" for n, (x, y) in means.items())
    return Plot(
        name="cost_against_quality",
        title="Cost against quality",
        how_to_read=(
            f"Mean over the attacked cells that all of these were run in ({len(cells)}). Lower "
            "left is best: little is left of the attack, and little time is spent on it. Times are "
            "those of simulated rounds, in which clients share the machine with the server."
        ),
        description=f"Time of a round and final attack success rate: {spoken}.",
        figure=figure,
    )


def _name_points(
    axes: Axes, points: Mapping[str, tuple[float, float]], colours: Mapping[str, str]
) -> None:
    """Write the names of points beside them, clear of each other where there is room."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # where things are is known once they are laid out
    middles = axes.transData.transform(list(points.values()))
    taken = [Bbox([middle - POINT, middle + POINT]) for middle in middles]
    for name, point in sorted(points.items(), key=lambda item: -item[1][1]):
        labels = [
            axes.annotate(
                "no defence" if name == "none" else name,
                point,
                xytext=(across, up),
                ha=side,
                textcoords="offset points",
                fontsize=7.5,
                color=colours[name],
            )
            for across, up, side in PLACES
        ]
        kept = min(labels, key=lambda label: label.get_window_extent().count_overlaps(taken))
        for label in labels:
            if label is not kept:
                label.remove()
        taken.append(kept.get_window_extent())
