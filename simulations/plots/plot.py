"""A plot with the words that belong to it, and the ways out: PNG, SVG, SVG inside a page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fl_shield.simulations.plots.style import INK, RC, THEME

WIDTH, HEIGHT = 5.4, 3.1  # inches; two side by side fill a page, one fills a phone
PNG_DOTS_PER_INCH = 200


@dataclass(frozen=True)
class Plot:
    """One figure and what to say about it.

    Attributes:
        name: Stem of the files.
        title: What is shown, in a few words.
        how_to_read: One or two sentences for the caption.
        description: What a person who does not see the figure needs to know, with the numbers.
        figure: The drawing, without its title.
    """

    name: str
    title: str
    how_to_read: str
    description: str
    figure: Figure

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Write the plot as PNG and SVG, title included, and return both paths."""
        folder.mkdir(parents=True, exist_ok=True)
        png, svg = folder / f"{self.name}.png", folder / f"{self.name}.svg"
        with matplotlib.rc_context(RC):
            title = self.figure.suptitle(
                self.title, x=0.012, ha="left", fontsize=11, fontweight="bold", color=INK
            )
            self.figure.savefig(png, dpi=PNG_DOTS_PER_INCH)
            self.figure.savefig(svg, metadata={"Date": None, "Title": self.title})
            title.remove()
        return png, svg

    def inline_svg(self) -> str:
        """Return an `<svg>` element that takes its colours from the page's CSS variables.

        Ids are prefixed with the plot's name, so that several plots can share a page; nothing in
        the element refers to anything outside it.
        """
        buffer = io.StringIO()
        with matplotlib.rc_context(RC):
            self.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        svg = buffer.getvalue()
        svg = svg[svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
        svg = re.sub(r"\bid=\"", f'id="{self.name}-', svg)
        svg = re.sub(r"url\(#", f"url(#{self.name}-", svg)
        svg = re.sub(r"xlink:href=\"#", f'href="#{self.name}-', svg)
        for colour, variable in THEME.items():
            svg = re.sub(rf":\s*{colour}\b", f": var({variable})", svg)
        view_box = re.search(r"viewBox=\"[^\"]*\"", svg)
        opening = (
            f'<svg {view_box.group(0) if view_box else ""} role="img" '
            f'aria-label="{escape(self.description)}" class="plot">'
        )
        return re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1)


@contextmanager
def new_figure(height: float = HEIGHT) -> Iterator[Figure]:
    """Give an empty figure in the common style, `WIDTH` by `height` inches.

    Figures are made without `pyplot`: no display, no global state, nothing to close.
    """
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
