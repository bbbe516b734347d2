"""How many attackers were caught and how many honest clients were held back, round by round."""

from __future__ import annotations

from fl_shield.simulations.plots.axes import (
    EndLabel,
    count_rounds,
    name_line_ends,
    show_shares,
)
from fl_shield.simulations.plots.plot import Plot, new_figure
from fl_shield.simulations.plots.style import ATTACK, CHECK, HONEST, LineLook
from fl_shield.simulations.run_folder import RunFolder
from fl_shield.simulations.wording import percent

Points = list[tuple[int, float]]


def detection_rates(run: RunFolder) -> Plot | None:
    """Return true and false positive rates over rounds; None if no arm was judged."""
    curves: dict[str, tuple[LineLook, Points]] = {}
    arm = run.judged_arm or run.arm("defended")
    if arm is not None:
        caught = [(entry.number, entry.tpr) for entry in arm.rounds if entry.tpr is not None]
        held = [(entry.number, entry.fpr) for entry in arm.rounds if entry.fpr is not None]
        curves["attackers flagged"] = (LineLook(ATTACK, "solid", "^"), caught)
        curves["honest flagged"] = (LineLook(HONEST, "solid", "s"), held)
    peaceful = run.arm("clean_defended")
    if peaceful is not None and peaceful is not arm:
        held = [(entry.number, entry.fpr) for entry in peaceful.rounds if entry.fpr is not None]
        curves["honest, no attack"] = (LineLook(CHECK, (0, (1.0, 1.6)), "D"), held)
    curves = {label: curve for label, curve in curves.items() if curve[1]}
    if not curves:
        return None
    means = {
        label: sum(rate for _, rate in points) / len(points)
        for label, (_, points) in curves.items()
    }
    with new_figure() as figure:
        axes = figure.subplots()
        labels = []
        for label, (look, points) in curves.items():
            axes.plot(
                [number for number, _ in points],
                [rate for _, rate in points],
                color=look.colour,
                linestyle=look.dashes,
                marker=look.marker,
                clip_on=False,
            )
            text = f"{label}\nmean {percent(means[label])}"
            labels.append(EndLabel(points[-1][1], text, look.colour))
        count_rounds(axes, [number for _, points in curves.values() for number, _ in points])
        show_shares(axes)
        name_line_ends(axes, labels, line_height=0.17)
    spoken = ", ".join(f"{label} {percent(mean)}" for label, mean in means.items())
    return Plot(
        name="detection_rates",
        title="Who was flagged",
        how_to_read=(
            "Of the replies that arrived in a round: the share of attackers (true positive rate) "
            "and of honest clients (false positive rate) that were dropped or down-weighted. "
            "With few attackers a round, the upper line moves in large steps."
        ),
        description=f"Share of replies flagged, mean over rounds: {spoken}.",
        figure=figure,
    )
