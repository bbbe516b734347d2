"""What scanners found in the final models: each score against its threshold, arm by arm."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from fl_shield.errors import StateError
from fl_shield.simulations.final_models import FinalModels, read_final_models
from fl_shield.simulations.plots.plot import Plot, new_figure
from fl_shield.simulations.plots.style import INK, SURFACE, LineLook, arm_looks
from fl_shield.simulations.run_folder import RunFolder

ROW, AROUND = 0.24, 0.75
"""Inches that a model takes in a panel, and those of its title, axis and margins."""


def final_models(run: RunFolder) -> Plot | None:
    """Return a panel for each scanner; None if there are no findings, or none that can be read."""
    try:
        found = read_final_models(run.path)
    except StateError:  # the report says so in words
        return None
    if found is None or not found.models:
        return None
    of_models = _names([[one.scanner for one in model.scanners] for model in found.models])
    of_inputs = _names([[one.scanner for one in model.inputs] for model in found.models])
    panels = len(of_models) + len(of_inputs)
    if not panels:
        return None
    looks = arm_looks([model.name for model in found.models])
    with new_figure(panels * (AROUND + ROW * len(found.models))) as figure:
        grid = figure.subplots(panels, squeeze=False)[:, 0]
        for axes, scanner in zip(grid, of_models, strict=False):
            _scores(axes, found, scanner, looks)
        for axes, scanner in zip(grid[len(of_models) :], of_inputs, strict=True):
            _shares(axes, found, scanner, looks)
    return Plot(
        name="final_models",
        title="The final models, scanned",
        how_to_read=(
            "Scanners of whole models: a score right of the dashed line makes the model a suspect. "
            "Scanners of inputs: the filled mark is the share of triggered inputs that is "
            "suspected, which should be high for a model with a backdoor; the hollow one is that "
            "of clean inputs, which should be near 0."
        ),
        description=_described(found),
        figure=figure,
    )


def _names(found: Sequence[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(name for names in found for name in names))


def _scores(axes: Axes, found: FinalModels, scanner: str, looks: dict[str, LineLook]) -> None:
    threshold = None
    for row, model in enumerate(found.models):
        for one in model.scanners:
            if one.scanner == scanner:
                look = looks[model.name]
                axes.plot(one.score, row, marker=look.marker, color=look.colour, markersize=7)
                threshold = one.threshold
    if threshold is not None:
        axes.axvline(threshold, color=INK, linestyle=(0, (4.0, 2.0)), linewidth=1.2)
    axes.margins(x=0.15)
    _name_rows(axes, found, f"{scanner}: score of the model")


def _shares(axes: Axes, found: FinalModels, scanner: str, looks: dict[str, LineLook]) -> None:
    for row, model in enumerate(found.models):
        for one in model.inputs:
            if one.scanner != scanner:
                continue
            look = looks[model.name]
            shares = [(one.false_alarms, SURFACE)]
            shares += [(one.found, look.colour)] if one.found is not None else []
            for share, face in shares:
                axes.plot(
                    share, row, marker=look.marker, color=look.colour,
                    markerfacecolor=face, markersize=7,
                )  # fmt: skip
    axes.set_xlim(-0.03, 1.03)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.0f} %"))
    _name_rows(axes, found, f"{scanner}: share of inputs that is suspected")


def _name_rows(axes: Axes, found: FinalModels, title: str) -> None:
    axes.set_title(title)
    axes.set_yticks(
        range(len(found.models)), [model.name.replace("_", " ") for model in found.models]
    )
    axes.set_ylim(len(found.models) - 0.5, -0.5)


def _described(found: FinalModels) -> str:
    parts = []
    for model in found.models:
        parts += [
            f"{model.name} {one.score:.2f} by {one.scanner}, threshold {one.threshold:.2f}"
            for one in model.scanners
        ]
        parts += [
            f"{model.name}: {one.scanner} suspects {100 * one.found:.1f} % of triggered and "
            f"{100 * one.false_alarms:.1f} % of clean inputs"
            for one in model.inputs
            if one.found is not None
        ]
    return "Final models: " + "; ".join(parts) + "."
