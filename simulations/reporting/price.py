"""Cost against quality: what a defence takes, and what it leaves of the attack."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from fl_shield.simulations.plots.axes import show_shares
from fl_shield.simulations.plots.plot import Plot, new_figure
from fl_shield.simulations.reporting.curves import defence_colours
from fl_shield.simulations.reporting.rows import Row
from fl_shield.simulations.wording import percent


def cost_against_quality(rows: Sequence[Row]) -> Plot | None:
    """Return each defence's time a round, as a multiple of none, against the ASR that it leaves.

    A run is compared with the undefended run of the same data, attack, share and seed; None when
    there is no such pair.
    """
    bare = {
        (*row.cell[:4], row.seed): row.seconds_per_round for row in rows if row.defence == "none"
    }
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        base = bare.get((*row.cell[:4], row.seed))
        if row.attackers and base and row.seconds_per_round and row.final_asr is not None:
            point = (row.seconds_per_round / base, row.final_asr)
            points.setdefault(row.defence, []).append(point)
    if set(points) <= {"none"}:
        return None
    means = {
        name: (statistics.fmean(x for x, _ in some), statistics.fmean(y for _, y in some))
        for name, some in points.items()
    }
    colours = defence_colours(list(means))
    with new_figure(3.4) as figure:
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.margins(x=0.2)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        for name, (times, asr) in means.items():
            axes.scatter([times], [asr], s=34, color=colours[name], zorder=3)
            axes.annotate(
                "no defence" if name == "none" else name,
                (times, asr),
                xytext=(5, 3),
                textcoords="offset points",
                fontsize=7.5,
                color=colours[name],
            )
        show_shares(axes)
        axes.set_xlabel("time of a round, as a multiple of that without defence")
        axes.set_ylabel("final attack success")
    spoken = ", ".join(f"{n} {x:.2f} times, {percent(y)}" for n, (x, y) in means.items())
    return Plot(
        name="cost_against_quality",
        title="Cost against quality",
        how_to_read=(
            "Mean over all attacked cells that a defence was run in. Lower left is best: little is "
            "left of the attack, and little time is spent on it. Times are those of simulated "
            "rounds, in which clients share the machine with the server."
        ),
        description=f"Time of a round and final attack success rate: {spoken}.",
        figure=figure,
    )
