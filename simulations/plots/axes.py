"""Axes that several plots share: rounds, percent, log-odds, and names at the ends of lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Log-odds beyond this are compressed: a scaled update can score in the thousands.
LINEAR_LOG_ODDS = 30.0


@dataclass(frozen=True)
class EndLabel:
    """A name beside the end of a line, at height `y` in data units."""

    y: float
    text: str
    colour: str


def count_rounds(axes: Axes, numbers: Sequence[int]) -> None:
    """Make x the round number, in whole rounds, from the first to the last of `numbers`."""
    first, last = min(numbers), max(numbers)
    axes.set_xlim(first - 0.4, last + 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.set_xlabel("round")


def show_shares(axes: Axes) -> None:
    """Make y a share from 0 to 100 %."""
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f} %"))


def show_log_odds(axes: Axes, which: str, values: Iterable[float]) -> None:
    """Make axis `which` ("x" or "y") log-odds, compressed outside ±30 if any value lies there."""
    if max((abs(value) for value in values), default=0.0) > LINEAR_LOG_ODDS:
        getattr(axes, f"set_{which}scale")("symlog", linthresh=LINEAR_LOG_ODDS / 3)


def name_line_ends(axes: Axes, labels: Sequence[EndLabel], line_height: float = 0.085) -> None:
    """Write names right of the axes at their lines' heights, moved apart where they would overlap.

    Args:
        axes: The axes; their y limits must be final.
        labels: What to write.
        line_height: Least distance of two names, as a share of the axes' height.
    """
    low, high = axes.get_ylim()
    ordered = sorted(labels, key=lambda label: label.y)
    heights = spread([(label.y - low) / (high - low) for label in ordered], line_height)
    for label, height in zip(ordered, heights, strict=True):
        axes.text(
            1.015,
            height,
            label.text,
            color=label.colour,
            transform=axes.transAxes,
            va="center",
            fontsize=9,
            fontweight="semibold",
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Return ascending `heights` moved as little as a simple sweep can, at least `gap` apart.

    >>> [round(h, 3) for h in spread([0.1, 0.1, 0.9], 0.1)]
    [0.05, 0.15, 0.9]
    """
    groups: list[tuple[list[float], float]] = []  # members, and the middle of the group
    for height in heights:
        members, middle = [height], height
        # A group that would overlap the one below joins it, around their common mean.
        while groups and middle - groups[-1][1] < gap * (len(members) + len(groups[-1][0])) / 2:
            members = groups.pop()[0] + members
            middle = sum(members) / len(members)
            middle = max(middle, gap * (len(members) - 1) / 2)
        groups.append((members, middle))
    return [
        middle + gap * (i - (len(members) - 1) / 2)
        for members, middle in groups
        for i in range(len(members))
    ]
