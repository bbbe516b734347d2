"""The headline study in two tables: all defences on one data set, and the shield everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from benchmarks.study_results import Record, number
from fl_shield.simulations.wording import percent

UNDEFENDED = "none"
ORACLE = "oracle"
"""Leaves out exactly the attackers: what is to be reached, and no rival."""


def defences_table(rows: Sequence[Record], data: str, attackers: str) -> str:
    """Return a line a defence: its means over attacks and seeds, lowest mean ASR first.

    Only cells that every defence of the table has finished count: means over others would compare
    easy attacks with hard ones.

    Args:
        rows: Lines of the study's CSV file.
        data: The data set.
        attackers: Share of malicious clients, as the file has it.
    """
    attacked = [
        row for row in rows
        if row["data"] == data and row["attackers"] == attackers and row["trigger"]
    ]  # fmt: skip
    cells: dict[tuple[str, ...], set[str]] = {}
    for row in attacked:
        cells.setdefault(_cell(row), set()).add(row["defence"])
    most = max((len(found) for found in cells.values()), default=0)
    full = {cell for cell, found in cells.items() if len(found) == most}
    defences = set.intersection(*(cells[cell] for cell in full)) if full else set()
    clean = [row for row in rows if row["data"] == data and not row["trigger"]]
    lines = []
    for name in defences:
        own = [row for row in attacked if row["defence"] == name and _cell(row) in full]
        quiet = [row for row in clean if row["defence"] == name]
        asr = _mean(own, "final_asr")
        worst = max(found for row in own if (found := number(row, "final_asr")) is not None)
        figures = [
            percent(asr), percent(worst), percent(_mean(own, "final_ma")),
            percent(_mean(quiet, "final_ma")), percent(_mean(own, "tpr")),
            percent(_mean(own, "fpr")), percent(_mean(quiet, "fpr")),
        ]  # fmt: skip
        lines.append((asr or 0.0, f"| {_shown(name)} | {' | '.join(figures)} |"))
    seeds = len({cell[-1] for cell in full})
    attacks = len({cell[:-1] for cell in full})
    head = [
        "| defence | ASR | worst ASR | MA | MA, no attack | TPR | FPR | FPR, no attack |",
        "|---|---|---|---|---|---|---|---|",
    ]
    note = (
        f"{data}, {100 * float(attackers):.0f} % attackers, means over cells: "
        f"{len(full)} ({attacks} of the attacks, {seeds} of the seeds)."
    )
    return "\n".join([*head, *(line for _, line in sorted(lines)), "", note])


def everywhere_table(rows: Sequence[Record], shields: Sequence[str]) -> str:
    """Return a line a data set and share of attackers: no defence, the shields, the best rival.

    Between the first two stands what a run reaches that leaves out exactly the attackers.

    The best rival has the lowest mean ASR of those that ran in the most cells of the line; where
    that is not all of them, the first shield's means over the same cells stand behind it.

    Args:
        rows: Lines of the study's CSV file.
        shields: Defences that are no rivals, those that never ran left out; the cells of a line are
            those that one of them ran in.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for row in rows:
        if row["trigger"]:
            groups.setdefault((row["data"], row["attackers"]), []).append(row)
    ran = {row["defence"] for row in rows if row["trigger"]}
    shields = [name for name in shields if name in ran]
    known = (UNDEFENDED, *((ORACLE,) if ORACLE in ran else ()), *shields)
    heads = [_shown(name) for name in known] + ["best rival"]
    lines = [
        f"| data | attackers | cells | {' | '.join(f'{head}: ASR, MA' for head in heads)} |",
        "|---" * (3 + len(heads)) + "|",
    ]
    for (data, attackers), members in sorted(groups.items()):
        cells = {_cell(row) for row in members if row["defence"] in shields}
        played: dict[str, list[Record]] = {}
        for row in members:
            if _cell(row) in cells:
                played.setdefault(row["defence"], []).append(row)
        whole = {name: own for name, own in played.items() if len(own) == len(cells)}
        shown = [_means(whole[name]) if name in whole else "–" for name in known]
        shown.append(_best_rival(played, [name for name in played if name not in known], shields))
        share = f"{100 * float(attackers):.0f} %"
        lines.append(f"| {data} | {share} | {len(cells)} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _best_rival(
    played: dict[str, list[Record]], rivals: Sequence[str], shields: Sequence[str]
) -> str:
    most = max((len(played[name]) for name in rivals), default=0)
    if not most:
        return "–"
    able = [name for name in rivals if len(played[name]) == most]
    best = min(able, key=lambda name: _mean(played[name], "final_asr") or 0.0)
    text = f"{_means(played[best])} ({_shown(best)})"
    there = {_cell(row) for row in played[best]}
    every = played.get(shields[0], [])
    own = [row for row in every if _cell(row) in there]
    if len(own) == len(every):
        return text
    return f"{text} in {most} of them, where {_shown(shields[0])}: {_means(own)}"


def _means(rows: Sequence[Record]) -> str:
    return f"{percent(_mean(rows, 'final_asr'))}, {percent(_mean(rows, 'final_ma'))}"


def _cell(row: Record) -> tuple[str, ...]:
    return row["attack"], row["trigger"], row["seed"]


def _shown(name: str) -> str:
    ours = {"meta_shield": "**MetaShield**", "meta_shield_live": "**MetaShield**, live"}
    return ({UNDEFENDED: "no defence", ORACLE: "attackers left out"} | ours).get(name, f"`{name}`")


def _mean(rows: Iterable[Record], key: str) -> float | None:
    found = [value for row in rows if (value := number(row, key)) is not None]
    return fmean(found) if found else None
