"""Scores of defences: ROC curves, and where attackers lie among honest clients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from fl_shield.simulations.plots.plot import Plot, new_figure
from fl_shield.simulations.plots.style import ATTACK, HONEST, QUIET, SURFACE
from fl_shield.simulations.reporting.curves import defence_colours
from fl_shield.simulations.reporting.rows import RunRow
from fl_shield.simulations.run_folder import Arm
from fl_shield.simulations.wording import percent

GRID = np.linspace(0, 1, 201)
"""False positive rates at which ROC curves of single runs are averaged."""

NUM_BINS = 24

Floats = NDArray[np.float64]


def roc(rows: Sequence[RunRow]) -> Plot | None:
    """Return a ROC curve for each defence, mean over its runs; None without scores."""
    curves: dict[str, list[Floats]] = {}
    areas: dict[str, list[float]] = {}
    for entry in rows:
        known = _labelled(entry.arm)
        if known is not None and entry.row.auroc is not None:
            scores, malicious = known
            fpr, tpr, _ = roc_curve(malicious, scores)
            curves.setdefault(entry.row.defence, []).append(np.interp(GRID, fpr, tpr))
            areas.setdefault(entry.row.defence, []).append(entry.row.auroc)
    if not curves:
        return None
    order = sorted(curves, key=lambda name: -float(np.mean(areas[name])))
    colours = defence_colours(order)
    with new_figure(3.4) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=(0, (2, 3)))
        for name in reversed(order):
            quiet = colours[name] == QUIET
            area = float(np.mean(areas[name]))
            axes.plot(
                GRID,
                np.mean(curves[name], axis=0),
                color=colours[name],
                linewidth=1.0 if quiet else 2.0,
                alpha=0.7 if quiet else 1,
                label=f"{name} {area:.3f}",
            )
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles[::-1], labels[::-1], loc="outside right upper", fontsize=7.5, title="AUROC"
        )
        axes.set_xlabel("honest updates flagged")
        axes.set_ylabel("malicious updates flagged")
    spoken = ", ".join(f"{name} {np.mean(areas[name]):.3f}" for name in order)
    return Plot(
        name="roc",
        title="ROC of single updates",
        how_to_read=(
            "Each run's curve over all its updates, averaged over the attacked runs of a defence. "
            "A defence that gives no scores has no curve; the dotted line is guessing."
        ),
        description=f"Mean area under the ROC curve: {spoken}.",
        figure=figure,
    )


def score_distributions(rows: Sequence[RunRow]) -> Plot | None:
    """Return, for each defence, where the scores of attackers lie among those of honest clients."""
    places: dict[str, tuple[list[Floats], list[Floats]]] = {}
    for entry in rows:
        known = _labelled(entry.arm)
        if known is not None and entry.row.auroc is not None:
            scores, malicious = known
            # Defences score on scales of their own: what counts is the place in the run.
            ranks = (np.argsort(np.argsort(scores, kind="stable")) + 0.5) / len(scores)
            benign, bad = places.setdefault(entry.row.defence, ([], []))
            benign.append(ranks[~malicious])
            bad.append(ranks[malicious])
    if not places:
        return None
    names = sorted(places)
    bins = list(np.linspace(0, 1, NUM_BINS + 1))
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    with new_figure(0.5 + 1.25 * lines) as figure:
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True)
        for axes in grid.flat[len(names) :]:
            axes.set_visible(False)
        for axes, name in zip(grid.flat, names, strict=False):
            for parts, colour in zip(places[name], (HONEST, ATTACK), strict=True):
                joined = np.concatenate(parts)
                axes.hist(
                    joined,
                    bins=bins,
                    weights=np.full(len(joined), 100 / max(1, len(joined))),
                    color=colour,
                    alpha=0.65,
                    edgecolor=SURFACE,
                    linewidth=0.5,
                )
            axes.set_title(name, fontsize=7.5)
            axes.tick_params(labelsize=7)
            axes.set_xticks([0, 0.5, 1], ["lowest", "", "highest"])
        figure.supylabel("% of updates", fontsize=8)
    medians = {name: float(np.median(np.concatenate(bad))) for name, (_, bad) in places.items()}
    spoken = ", ".join(f"{name} {percent(medians[name])}" for name in names)
    return Plot(
        name="score_distributions",
        title="Scores of attackers and honest clients",
        how_to_read=(
            "Where updates lie among all scores of their run, from the lowest to the highest: "
            "orange attackers, grey honest clients. A good score puts orange right, grey left."
        ),
        description=f"Median place of the attackers' scores in their run: {spoken}.",
        figure=figure,
    )


def _labelled(arm: Arm) -> tuple[Floats, NDArray[np.bool_]] | None:
    known = [
        (verdict.score, truth)
        for verdict in arm.verdicts
        if verdict.score is not None and (truth := arm.is_malicious(verdict.node_id)) is not None
    ]
    if not known:
        return None
    return np.asarray([s for s, _ in known], dtype=float), np.asarray([t for _, t in known])
