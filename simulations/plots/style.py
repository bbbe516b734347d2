"""The one look of all plots: three meanings, three colours, and hardly anything else.

Grey is honest, orange is attack, blue is the shield, in every plot. Each colour reaches a contrast
of 4.5 to 1 on the page, in light and in dark, so that lines can be named by coloured words at their
ends; dashes and marker shapes say the same to whoever does not see the hue.

Plots are drawn in the light colours. `THEME` names the CSS variable that stands for each of them,
so that a report can put one drawing on a light and on a dark page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SURFACE, INK, QUIET, GRID = "#fdfdfc", "#17181a", "#5f6062", "#e4e4e0"
HONEST, ATTACK, SHIELD, CHECK = "#6d6b66", "#c2410c", "#1d66c4", "#0b7a5b"
# For arms beyond the usual four, in this order.
OTHER_ARMS = ("#7a3fb0", "#a21e6b", "#8a6100")
# Evidence from "surely honest" to "surely an attacker"; the middle is almost the page.
EVIDENCE = (
    "#8d9096", "#aeb1b6", "#cdcfd2", "#e7e8e8", "#f3f2ef",
    "#fbdcc6", "#f5b28a", "#e67e45", "#c1440e",
)  # fmt: skip

THEME: Mapping[str, str] = {
    SURFACE: "--surface",
    INK: "--ink",
    QUIET: "--quiet",
    GRID: "--grid",
    HONEST: "--honest",
    ATTACK: "--attack",
    SHIELD: "--shield",
    CHECK: "--check",
    **{colour: f"--other-{i}" for i, colour in enumerate(OTHER_ARMS)},
    **{colour: f"--evidence-{i}" for i, colour in enumerate(EVIDENCE)},
}

RC: dict[Any, Any] = {
    "figure.facecolor": SURFACE,
    "savefig.facecolor": SURFACE,
    "axes.facecolor": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "axes.labelcolor": QUIET,
    "axes.edgecolor": GRID,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "text.parse_math": False,  # names come from files: a "$" in them is a dollar sign
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",  # words stay words: searchable, and in the reader's own font
    "svg.hashsalt": "fl_shield",  # the same run gives the same file
}


@dataclass(frozen=True)
class LineLook:
    """How the line of one arm is drawn."""

    colour: str
    dashes: str | tuple[float, tuple[float, ...]]
    marker: str


KNOWN_LOOKS = {
    "clean": LineLook(HONEST, (0, (4.0, 2.0)), "s"),
    "undefended": LineLook(ATTACK, "solid", "^"),
    "defended": LineLook(SHIELD, "solid", "o"),
    "clean_defended": LineLook(CHECK, (0, (1.0, 1.6)), "D"),
}


def arm_looks(names: Sequence[str]) -> dict[str, LineLook]:
    """Return the look of each arm; a known arm looks the same in every run."""
    others = [name for name in names if name not in KNOWN_LOOKS]
    markers = "vPX"
    looks = dict(KNOWN_LOOKS)
    for i, name in enumerate(others):
        turn = i % len(OTHER_ARMS)
        looks[name] = LineLook(OTHER_ARMS[turn], "solid", markers[turn])
    return {name: looks[name] for name in names}
