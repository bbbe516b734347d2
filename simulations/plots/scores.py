"""Scores of the detector: all of them as two histograms, and how they move over the rounds."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fl_shield.simulations.plots.axes import LINEAR_LOG_ODDS, count_rounds, show_log_odds
from fl_shield.simulations.plots.plot import Plot, new_figure
from fl_shield.simulations.plots.style import ATTACK, HONEST, INK, SURFACE
from fl_shield.simulations.run_folder import Arm, RunFolder

NUM_BINS = 36


def score_distribution(run: RunFolder) -> Plot | None:
    """Return histograms of all scores, attackers above honest clients; None without scores."""
    arm = run.judged_arm
    groups = {} if arm is None else _scores_by_kind(arm)
    if arm is None or not groups:
        return None
    everything = np.concatenate([np.asarray(scores) for scores in groups.values()])
    bins = _bins(everything)
    with new_figure() as figure:
        rows = figure.subplots(len(groups), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (kind, scores) in zip(rows, groups.items(), strict=True):
            axes.hist(
                scores,
                bins=list(bins),
                weights=np.full(len(scores), 100 / len(scores)),
                color=ATTACK if kind == "attackers" else HONEST,
                edgecolor=SURFACE,
                linewidth=0.8,
            )
            axes.axvline(np.median(scores), color=INK, linewidth=1.2)
            axes.set_title(f"{kind}: {len(scores)} updates, median {np.median(scores):.1f}")
            axes.set_ylabel("% of updates")
            show_log_odds(axes, "x", everything)
        rows[-1].set_xlabel("score of one update (log-odds of a backdoor)")
    spans = "; ".join(
        f"{kind}: {len(scores)} updates, median {np.median(scores):.2f}, middle 80 % from "
        f"{np.percentile(scores, 10):.2f} to {np.percentile(scores, 90):.2f}"
        for kind, scores in groups.items()
    )
    return Plot(
        name="score_distribution",
        title="Scores, all rounds",
        how_to_read=(
            f"Every score that the detector gave in the {arm.label} arm; the thin line is the "
            "median. The less the two histograms overlap, the more a single round reveals."
        ),
        description=f"Histograms of scores. {spans}.",
        figure=figure,
    )


def scores_over_rounds(run: RunFolder) -> Plot | None:
    """Return each attacker's score beside the range of the honest ones; None without scores."""
    arm = run.judged_arm
    if arm is None:
        return None
    honest: dict[int, list[float]] = defaultdict(list)
    attackers: list[tuple[int, float]] = []
    for verdict in arm.verdicts:
        if verdict.score is None:
            continue
        if arm.is_malicious(verdict.node_id):
            attackers.append((verdict.round_number, verdict.score))
        else:
            honest[verdict.round_number].append(verdict.score)
    if not honest and not attackers:
        return None
    rounds = sorted(honest)
    low, middle, high = (
        [float(np.percentile(honest[number], share)) for number in rounds] for share in (10, 50, 90)
    )
    kind = "honest clients" if arm.truth else "all clients"
    with new_figure() as figure:
        axes = figure.subplots()
        if len(rounds) > 1:
            axes.fill_between(rounds, low, high, color=HONEST, alpha=0.25, linewidth=0)
        else:
            axes.vlines(rounds, low, high, color=HONEST, alpha=0.35, linewidth=8)
        axes.plot(rounds, middle, color=HONEST, marker="s" if len(rounds) < 2 else None)
        axes.scatter(
            [number for number, _ in attackers],
            [score for _, score in attackers],
            s=26,
            color=ATTACK,
            edgecolor=SURFACE,
            linewidth=0.8,
            marker="^",
            zorder=3,
        )
        handles: list[Line2D | Patch] = []
        if attackers:
            handles.append(
                Line2D([], [], color=ATTACK, marker="^", linestyle="", label="one attacker")
            )
        if rounds:
            handles += [
                Line2D([], [], color=HONEST, label=f"{kind}: median"),
                Patch(color=HONEST, alpha=0.25, linewidth=0, label="middle 80 %"),
            ]
        figure.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=1.4)
        count_rounds(axes, [*rounds, *(number for number, _ in attackers)])
        show_log_odds(axes, "y", [*low, *high, *(score for _, score in attackers)])
        axes.set_ylabel("score (log-odds)")
    above = sum(score > high[rounds.index(n)] for n, score in attackers if n in honest)
    return Plot(
        name="scores_over_rounds",
        title="Scores, round by round",
        how_to_read=(
            "Each triangle is one attacker's update; the line and the band are the "
            f"{kind}. Attackers inside the band look like everybody else in that round, "
            "and only evidence over several rounds can tell them apart."
        ),
        description=(
            f"Scores over {len(rounds)} rounds: {above} of {len(attackers)} attacker updates "
            f"score above nine tenths of the {kind} of their round."
        ),
        figure=figure,
    )


def _scores_by_kind(arm: Arm) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for kind, wanted in (("attackers", True), ("honest clients", False), ("clients", None)):
        scores = [
            verdict.score
            for verdict in arm.verdicts
            if verdict.score is not None and arm.is_malicious(verdict.node_id) is wanted
        ]
        if scores:
            groups[kind] = scores
    return groups


def _bins(scores: np.ndarray) -> np.ndarray:
    """Return bin edges that are equally wide as drawn, on the linear and the compressed axis."""
    low, high = float(scores.min()), float(scores.max())
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    if max(abs(low), abs(high)) <= LINEAR_LOG_ODDS:
        return np.linspace(low, high, NUM_BINS + 1)
    knee = LINEAR_LOG_ODDS / 3
    edges = np.linspace(np.arcsinh(low / knee), np.arcsinh(high / knee), NUM_BINS + 1)
    return np.asarray(knee * np.sinh(edges))
