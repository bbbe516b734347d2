"""The evidence against each client over the rounds, and what was decided: one cell a reply."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.ticker import MaxNLocator

from fl_shield.judge.verdict import Decision
from fl_shield.simulations.plots.plot import Plot, new_figure
from fl_shield.simulations.plots.style import ATTACK, EVIDENCE, HONEST, INK, SURFACE
from fl_shield.simulations.run_folder import Arm, RunFolder

MAX_CLIENTS, MAX_COLUMNS = 50, 60
# Strongest last: of the rounds that share a column, the gravest decision is marked.
MARKS = {
    Decision.REJECT: ("s", "rejected (malformed)"),
    Decision.DOWNWEIGHT: ("v", "down-weighted"),
    Decision.DROP: ("X", "dropped"),
}


def evidence(run: RunFolder) -> Plot | None:
    """Return the map of evidence, clients by rounds; None if no arm was judged."""
    arm = run.judged_arm
    if arm is None:
        return None
    clients = _chosen_clients(arm)
    rounds = [verdict.round_number for verdict in arm.verdicts]
    first, last = min(rounds), max(rounds)
    step = -(-(last - first + 1) // MAX_COLUMNS)  # rounds a column
    columns = (last - first) // step + 1
    values = np.full((len(clients), columns), np.nan)
    marks: dict[tuple[int, int], Decision] = {}
    row_of = {node_id: row for row, node_id in enumerate(clients)}
    for verdict in arm.verdicts:
        row = row_of.get(verdict.node_id)
        if row is None:
            continue
        cell = row, (verdict.round_number - first) // step
        if verdict.evidence is not None:
            values[cell] = verdict.evidence
        order = list(MARKS)
        if verdict.decision in MARKS:
            earlier = marks.get(cell, verdict.decision)
            marks[cell] = max(verdict.decision, earlier, key=order.index)
    known = values[np.isfinite(values)]
    reach = _round_up(float(np.percentile(np.abs(known), 90))) if known.size else 1.0
    edges = np.linspace(-reach, reach, len(EVIDENCE) + 1)
    with new_figure(height=1.5 + 0.165 * max(len(clients), 4)) as figure:
        axes = figure.subplots()
        x = first - 0.5 + step * np.arange(columns + 1)
        cells = axes.pcolormesh(
            x,
            np.arange(len(clients) + 1) - 0.5,
            np.ma.masked_invalid(values),
            cmap=ListedColormap(EVIDENCE),
            norm=BoundaryNorm(edges, len(EVIDENCE), clip=True),
            edgecolor=SURFACE,
            linewidth=0.6,
        )
        _mark_decisions(axes, marks, values, (x[:-1] + x[1:]) / 2, edges)
        _name_clients(axes, arm, clients)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
        axes.set_xlabel("round" if step == 1 else f"round ({step} rounds a column)")
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        bar = figure.colorbar(
            cells, ax=axes, location="bottom", aspect=45, shrink=0.8, pad=0.02, ticks=edges[::3]
        )
        bar.ax.set_xticklabels([f"{edge:+.3g}" for edge in edges[::3]])
        bar.outline.set_visible(False)
        bar.set_label("evidence (log-odds): honest left, attacker right")
        if marks:
            figure.legend(loc="outside upper left", ncols=3, handletextpad=0.2, columnspacing=1.2)
    shown = len(clients)
    total = len({verdict.node_id for verdict in arm.verdicts})
    cut = f" Shown are the {shown} of {total} clients with the most evidence." * (shown < total)
    flagged = {v.node_id for v in arm.verdicts if v.flagged}
    bad = {node_id for node_id in flagged if arm.is_malicious(node_id)}
    return Plot(
        name="evidence",
        title="Evidence against each client",
        how_to_read=(
            "One row a client, one column a round; the darker the orange, the more evidence has "
            "gathered over the rounds so far. An empty cell: no reply was judged. Numbers are the "
            f"clients' partitions in the simulation.{cut}"
        ),
        description=(
            f"Map of evidence for {shown} clients over rounds {first} to {last}. Flagged at least "
            f"once: {len(bad)} attackers and {len(flagged) - len(bad)} others."
        ),
        figure=figure,
    )


def _chosen_clients(arm: Arm) -> list[str]:
    """Return node ids, honest first (drawn at the bottom), each group by partition."""
    highest: dict[str, float] = defaultdict(lambda: -np.inf)
    for verdict in arm.verdicts:
        gained = -np.inf if verdict.evidence is None else verdict.evidence
        highest[verdict.node_id] = max(highest[verdict.node_id], gained)
    chosen = sorted(highest, key=lambda node_id: (-highest[node_id], node_id))[:MAX_CLIENTS]

    def place(node_id: str) -> tuple[bool, int, str]:
        known = arm.truth.get(node_id)
        return bool(arm.is_malicious(node_id)), -known.partition_id if known else 0, node_id

    return sorted(chosen, key=place)


def _name_clients(axes: Axes, arm: Arm, clients: Sequence[str]) -> None:
    bad = [bool(arm.is_malicious(node_id)) for node_id in clients]
    names = [
        str(arm.truth[node_id].partition_id) if node_id in arm.truth else f"…{node_id[-5:]}"
        for node_id in clients
    ]
    axes.set_yticks(range(len(clients)), names, fontsize=7.5)
    for label, is_bad in zip(axes.get_yticklabels(), bad, strict=True):
        label.set_color(ATTACK if is_bad else HONEST)
        label.set_fontweight("bold" if is_bad else "normal")
    num_honest = bad.count(False)
    for text, colour, low, size in (
        ("honest" if arm.truth else "clients", HONEST, 0, num_honest),
        ("attackers", ATTACK, num_honest, len(bad) - num_honest),
    ):
        if size:
            axes.annotate(
                text,
                (0, low + (size - 1) / 2),
                xycoords=("axes fraction", "data"),
                xytext=(-26 if arm.truth else -44, 0),
                textcoords="offset points",
                rotation=90,
                ha="center",
                va="center",
                color=colour,
                fontweight="semibold",
                fontsize=9,
            )
    if 0 < num_honest < len(bad):
        axes.axhline(num_honest - 0.5, color=INK, linewidth=1.2)


def _mark_decisions(
    axes: Axes,
    marks: dict[tuple[int, int], Decision],
    values: np.ndarray,
    centres: np.ndarray,
    edges: np.ndarray,
) -> None:
    for decision in reversed(MARKS):
        shape, label = MARKS[decision]
        cells = [cell for cell, marked in marks.items() if marked is decision]
        if not cells:
            continue
        # On the two strongest colours a dark mark would drown.
        strong = [bool(values[cell] > edges[-3]) for cell in cells]
        for is_strong in (False, True):
            some = [cell for cell, is_so in zip(cells, strong, strict=True) if is_so is is_strong]
            axes.scatter(
                [centres[column] for _, column in some],
                [row for row, _ in some],
                s=13,
                marker=shape,
                color=SURFACE if is_strong else INK,
                linewidth=0,
            )
        axes.scatter([], [], s=26, marker=shape, color=INK, linewidth=0, label=label)


def _round_up(value: float) -> float:
    """Return the next of 1, 1.5, 2, 3, 5, 7.5 times a power of ten; 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(
        next((s * power for s in (1, 1.5, 2, 3, 5, 7.5) if s * power >= value), 10 * power)
    )
