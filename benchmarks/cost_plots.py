"""The time of each defence by number of clients, one panel a model, as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.cost_figures import Row
from benchmarks.cost_models import SIZES

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
MARKERS = ("o", "s", "D", "^", "v", "P")


def draw_costs(rows: Sequence[Row], titles: Mapping[str, str], file: Path) -> None:
    """Draw seconds a client over the seconds of its plain forward passes."""
    models = [model for model in SIZES if any(row["model"] == model for row in _shield(rows))]
    if not models:
        return
    figure, panels = plt.subplots(
        1, len(models), figsize=(11, 4.2), sharey=True, squeeze=False, layout="constrained"
    )
    axes = panels[0]
    for axis, model in zip(axes, models, strict=True):
        own = [row for row in rows if row["model"] == model and "left_out" not in row]
        floors = {row["clients"]: row["floor_seconds_per_client"] for row in _shield(own)}
        for index, (name, title) in enumerate(titles.items()):
            line = [
                (row["clients"], row["seconds"] / row["clients"] / floors[row["clients"]])
                for row in own
                if row.get("rival", row["kind"]) == name and row["clients"] in floors
            ]
            if not line:
                continue
            axis.plot(
                [clients for clients, _ in line],
                [ratio for _, ratio in line],
                color=COLOURS[index],
                marker=MARKERS[index],
                linewidth=2.5 if index == 0 else 1.2,
                label=title,
            )
        axis.axhline(1.0, color="#888888", linestyle="--", linewidth=1)
        axis.set(xscale="log", yscale="log", xlabel="clients in the round")
        axis.set_title(SIZES[model].title, loc="left", fontsize=11)
        axis.grid(color="#dddddd")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("time a client / its plain forward passes")
    axes[0].legend(fontsize=8)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def _shield(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["kind"] == "shield" and "left_out" not in row]
