"""Curves of many runs: a panel for each attack, a line for each defence, a band over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from fl_shield.simulations.plots.axes import show_shares
from fl_shield.simulations.plots.plot import Plot, new_figure
from fl_shield.simulations.plots.style import ATTACK, CHECK, OTHER_ARMS, QUIET, SHIELD
from fl_shield.simulations.reporting.rows import RunRow
from fl_shield.simulations.run_folder import Round

MAX_PANELS = 18
COLUMNS = 3
PANEL_HEIGHT = 1.85  # inches

Curves = dict[str, list[dict[int, float]]]
"""Defence to one curve a seed: round to share."""


def asr_curves(rows: Sequence[RunRow]) -> Plot | None:
    """Return the attack success rate over rounds, a panel for each attack; None without any."""
    return _panels(
        [row for row in rows if row.row.attackers],
        lambda entry: entry.asr,
        name="asr_curves",
        title="Attack success rate",
        how_to_read=(
            "Share of triggered test samples that the global model gives the attacker's class. "
            "Lines are means over seeds, bands reach from the lowest to the highest seed. Orange "
            "is the attack without a defence; what stays low is good."
        ),
    )


def accuracy_curves(rows: Sequence[RunRow]) -> Plot | None:
    """Return main accuracy over rounds, a panel for each attack; None without any."""
    return _panels(
        rows,
        lambda entry: entry.main_accuracy,
        name="accuracy_curves",
        title="Main accuracy",
        how_to_read=(
            "Share of clean test samples classified correctly; the same lines and bands. A defence "
            "that costs nothing stays on the line of the undefended run."
        ),
    )


def defence_colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each defence: the meaningful ones fixed, a few others, the rest quiet."""
    others = [name for name in sorted(set(names)) if name not in ("none", "meta_shield")]
    colours = dict.fromkeys(others, QUIET)
    if len(others) <= len(OTHER_ARMS) + 1:
        colours = dict(zip(others, (*OTHER_ARMS, CHECK), strict=False))
    return {"none": ATTACK, "meta_shield": SHIELD, **colours}


def _panels(
    rows: Sequence[RunRow],
    measure: Callable[[Round], float | None],
    *,
    name: str,
    title: str,
    how_to_read: str,
) -> Plot | None:
    panels: dict[str, Curves] = {}
    for entry in rows:
        row = entry.row
        curve = {r.number: y for r in entry.arm.rounds if (y := measure(r)) is not None}
        if curve:
            share = f", {100 * row.attackers:g} %" if row.attackers else ""
            panel = panels.setdefault(f"{row.data}{share}\n{row.attack_name}", {})
            panel.setdefault(row.defence, []).append(curve)
    if not panels:
        return None
    shown = dict(sorted(panels.items())[:MAX_PANELS])
    colours = defence_colours([defence for curves in shown.values() for defence in curves])
    columns = min(COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    with new_figure(0.6 + PANEL_HEIGHT * lines) as figure:
        grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
        for axes in grid.flat[len(shown) :]:
            axes.set_visible(False)
        for axes, (heading, curves) in zip(grid.flat, shown.items(), strict=False):
            _draw(axes, curves, colours)
            axes.set_title(heading, fontsize=7.5)
            axes.tick_params(labelsize=7)
            show_shares(axes)
            axes.set_xlabel("round", fontsize=7)
        used = {defence for curves in shown.values() for defence in curves}
        figure.legend(
            handles=_handles(colours, used), loc="outside lower left", ncols=4, fontsize=7.5
        )
    left_out = len(panels) - len(shown)
    more = f" {left_out} more panels are left out; results.csv has them." if left_out else ""
    return Plot(name, title, how_to_read + more, f"{title}: {_spoken(shown)}.", figure)


def _draw(axes: Axes, curves: Curves, colours: Mapping[str, str]) -> None:
    order = sorted(curves, key=lambda defence: colours[defence] != QUIET)  # the quiet ones below
    for defence in order:
        rounds = sorted({number for curve in curves[defence] for number in curve})
        low, mean, high = (
            [float(reduce([c[n] for c in curves[defence] if n in c])) for n in rounds]
            for reduce in (min, np.mean, max)
        )
        quiet = colours[defence] == QUIET
        look: dict[str, Any] = {"color": colours[defence]}
        if len(curves[defence]) > 1:
            axes.fill_between(rounds, low, high, alpha=0.18, linewidth=0, **look)
        axes.plot(rounds, mean, linewidth=0.9 if quiet else 1.6, alpha=0.7 if quiet else 1, **look)


def _handles(colours: Mapping[str, str], used: set[str]) -> list[Line2D]:
    quiet = sorted(name for name in used if colours[name] == QUIET)
    handles = [
        Line2D([], [], color=colours[name], label="no defence" if name == "none" else name)
        for name in colours
        if name in used and name not in quiet
    ]
    if quiet:
        handles.append(Line2D([], [], color=QUIET, label=f"{len(quiet)} other defences"))
    return handles


def _spoken(panels: Mapping[str, Curves]) -> str:
    parts = []
    for heading, curves in panels.items():
        ends = ", ".join(
            f"{name} {100 * float(np.mean([c[max(c)] for c in some])):.1f} %"
            for name, some in curves.items()
        )
        parts.append(f"{heading.replace(chr(10), ' ')} ends at {ends}")
    return "; ".join(parts)
