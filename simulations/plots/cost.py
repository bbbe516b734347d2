"""What the shield costs: the seconds of each round, its own share apart."""

from __future__ import annotations

from typing import Any

from matplotlib.patches import Patch

from fl_shield.simulations.plots.axes import count_rounds
from fl_shield.simulations.plots.plot import Plot, new_figure
from fl_shield.simulations.plots.style import HONEST, SHIELD, SURFACE
from fl_shield.simulations.run_folder import RunFolder
from fl_shield.simulations.wording import percent


def cost(run: RunFolder) -> Plot | None:
    """Return seconds a round, split into shield and rest; None if no round was timed."""
    arm = run.judged_arm or next((arm for arm in run.arms if arm.rounds), None)
    timed = [] if arm is None else [entry for entry in arm.rounds if entry.seconds is not None]
    if arm is None or not timed:
        return None
    numbers = [entry.number for entry in timed]
    shield = [entry.shield_seconds or 0.0 for entry in timed]
    rest = [
        max((entry.seconds or 0.0) - own, 0.0) for entry, own in zip(timed, shield, strict=True)
    ]
    whole = sum(rest) + sum(shield)
    share = sum(shield) / whole if whole else None
    with new_figure() as figure:
        axes = figure.subplots()
        edge: dict[str, Any] = {
            "edgecolor": SURFACE,
            "linewidth": 0.8 if len(numbers) <= 60 else 0.0,
        }
        axes.bar(numbers, rest, width=0.82, color=HONEST, alpha=0.55, **edge)
        axes.bar(numbers, shield, width=0.82, bottom=rest, color=SHIELD, **edge)
        count_rounds(axes, numbers)
        axes.set_ylabel("seconds")
        handles = [
            Patch(color=SHIELD, linewidth=0, label=f"shield: mean {_mean(shield)} s"),
            Patch(color=HONEST, alpha=0.55, linewidth=0, label=f"rest: mean {_mean(rest)} s"),
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=2, handlelength=1.2)
    return Plot(
        name="cost",
        title=f"Seconds a round, {arm.label} arm",
        how_to_read=(
            f"Wall-clock time of each round. The shield took {percent(share)} of it; the rest is "
            "training on the clients, transfer, aggregation and evaluation."
        ),
        description=(
            f"Seconds per round over {len(timed)} rounds: shield {_mean(shield)} on average, "
            f"rest {_mean(rest)}; the shield's share is {percent(share)}."
        ),
        figure=figure,
    )


def _mean(seconds: list[float]) -> str:
    return f"{sum(seconds) / len(seconds):.3g}"
