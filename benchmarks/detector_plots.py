"""The detector beside the statistics of published defences, as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
MARKERS = ("o", "s", "D", "^", "v")
PANELS = {"auroc": "AUROC of one round", "tpr_at_1fpr_5_rounds": "TPR at 1 % FPR after five rounds"}


def draw_rivals(rows: Sequence[Mapping[str, Any]], judged: Sequence[str], file: Path) -> None:
    """Draw both figures of every statistic on every data set."""
    kept = [r for r in rows if r["table"] == "data set"]
    names = list(dict.fromkeys(str(r["statistic"]) for r in kept))
    best = {n: sum(r["auroc"] for r in kept if r["statistic"] == n) for n in names}
    names.sort(key=lambda name: best[name])
    figure, axes = plt.subplots(1, 2, figsize=(10, 5), sharey=True, layout="constrained")
    for axis, (key, title) in zip(axes, PANELS.items(), strict=True):
        for index, data_set in enumerate(judged):
            values = {r["statistic"]: r[key] for r in kept if r["held_out"] == data_set}
            axis.scatter(
                [values.get(name) for name in names],
                range(len(names)),
                color=COLOURS[index % len(COLOURS)],
                marker=MARKERS[index % len(MARKERS)],
                label=data_set,
                s=45,
                alpha=0.85,
            )
        axis.set_title(title, loc="left", fontsize=11)
        axis.grid(axis="x", color="#dddddd")
        axis.set_axisbelow(True)
        axis.set_xlim(0.35 if key == "auroc" else -0.03, 1.02)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].axvline(0.5, color="#888888", linestyle="--", linewidth=1)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].get_yticklabels()[-1].set_fontweight("bold")
    axes[1].legend(title="data set, never seen", fontsize=9, loc="lower right")
    figure.savefig(file, dpi=130)
    plt.close(figure)
