"""Heat map: attacks across, defences down, and how far each attack got in each cell."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from fl_shield.simulations.plots.plot import Plot, new_figure
from fl_shield.simulations.plots.style import EVIDENCE, INK, QUIET, SURFACE
from fl_shield.simulations.reporting.rows import Row
from fl_shield.simulations.reporting.tables import Group, groups_of

COLOURS = LinearSegmentedColormap.from_list("asr", EVIDENCE[4:])


def heat_maps(rows: Sequence[Row]) -> list[Plot]:
    """Return a heat map of final attack success for each data set and share of attackers."""
    groups = [group for group in groups_of(rows) if group.first.attackers]
    places = list(dict.fromkeys((g.first.data, g.first.attackers) for g in groups))
    return [
        _heat_map(
            data, share, [g for g in groups if (g.first.data, g.first.attackers) == (data, share)]
        )
        for data, share in places
    ]


def _heat_map(data: str, share: float, groups: list[Group]) -> Plot:
    attacks = list(dict.fromkeys(group.first.attack_name for group in groups))
    defences = list(dict.fromkeys(group.first.defence for group in groups))
    values = np.full((len(defences), len(attacks)), np.nan)
    for group in groups:
        mean = group.spread("final_asr").mean
        place = defences.index(group.first.defence), attacks.index(group.first.attack_name)
        values[place] = np.nan if mean is None else mean
    with new_figure(1.2 + 0.24 * len(defences)) as figure:
        axes = figure.subplots()
        axes.grid(visible=False)
        axes.pcolormesh(values, cmap=COLOURS, vmin=0, vmax=1, edgecolor=SURFACE, linewidth=1)
        for (down, across), value in np.ndenumerate(values):
            text = "–" if np.isnan(value) else f"{100 * value:.0f}"
            colour = QUIET if np.isnan(value) else SURFACE if value > 0.75 else INK
            axes.text(
                across + 0.5, down + 0.5, text, ha="center", va="center", fontsize=7.5, color=colour
            )
        axes.set_xticks(
            np.arange(len(attacks)) + 0.5, attacks, rotation=35, ha="right", fontsize=7.5
        )
        names = ["no defence" if name == "none" else name for name in defences]
        axes.set_yticks(np.arange(len(defences)) + 0.5, names, fontsize=7.5)
        axes.invert_yaxis()
        axes.spines[:].set_visible(False)
    spoken = "; ".join(
        f"{g.first.attack_name} against {g.first.defence} {g.spread('final_asr').percent()} %"
        for g in groups
    )
    return Plot(
        name=f"heat_map_{re.sub(r'[^A-Za-z0-9.-]+', '_', data)}_{100 * share:.0f}",
        title=f"Attack × defence, {data}, {100 * share:g} % attackers",
        how_to_read=(
            "Final attack success rate in percent, mean over seeds. The first line is what the "
            "attack does when nobody defends; the paler the other lines, the better."
        ),
        description=f"Final attack success rates: {spoken}.",
        figure=figure,
    )
