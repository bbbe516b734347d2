"""The page of many runs: one HTML file that needs neither network nor server."""

from __future__ import annotations

from collections.abc import Sequence

from fl_shield.simulations.final_section import Section
from fl_shield.simulations.plots.plot import Plot
from fl_shield.simulations.report import template
from fl_shield.simulations.reporting.rows import Row
from fl_shield.simulations.reporting.tables import HEADINGS, NUM_TEXT, groups_of
from fl_shield.simulations.wording import percent

RUN_HEADINGS = (
    "run", "data", "attack", "defence", "model", "attackers", "seed", "rounds", "final ASR",
    "highest ASR", "clean ASR", "final MA", "clean MA", "TPR", "FPR", "AUROC", "s / round", "seen",
)  # fmt: skip


def page_of(
    title: str,
    rows: Sequence[Row],
    damage: Sequence[str],
    plots: Sequence[Plot],
    final: Section,
) -> str:
    """Return the page: headline, table of means, plots, final models, a line for every run."""
    page: str = template("runs.html.j2").render(
        title=title,
        headline=headline(rows),
        unfinished=sum(not row.finished for row in rows),
        damage=damage,
        headings=HEADINGS,
        num_text=NUM_TEXT,
        means=[group.texts() for group in groups_of(rows)],
        plots=[
            {"name": p.name, "title": p.title, "how_to_read": p.how_to_read, "svg": p.inline_svg()}
            for p in plots
        ],
        final=final,
        run_headings=RUN_HEADINGS,
        rows=[_line(row) for row in rows],
    )
    return page


def headline(rows: Sequence[Row]) -> str:
    """Return what the runs showed, in a sentence; says only what was measured.

    The defences are compared on the attacked cells (data, attack, share, seed) that all of them
    were run in, so that nobody is better for having been spared the hard ones.
    """
    attacked = [row for row in rows if row.attackers and row.final_asr is not None]
    cells: dict[str, dict[object, float]] = {}
    for row in attacked:
        cells.setdefault(row.defence, {})[(*row.cell[:4], row.seed)] = row.final_asr or 0.0
    if not cells:
        return f"{len(rows)} runs, none of them under attack."
    common = set.intersection(*(set(found) for found in cells.values()))
    if len(cells) < 2 or not common:
        return f"{len(rows)} runs, {len(attacked)} of them under attack."
    means = {
        name: sum(found[cell] for cell in common) / len(common) for name, found in cells.items()
    }
    order = sorted(means, key=lambda name: means[name])
    best = ", ".join(
        f"{_name(name)} {percent(means[name])}" for name in order[:4] if name != "none"
    )
    undefended = f", against {percent(means['none'])} without a defence" if "none" in means else ""
    cells_text = "the attacked cell" if len(common) == 1 else f"the {len(common)} attacked cells"
    return (
        f"In {cells_text} that all {len(cells)} defences share, the lowest mean attack success "
        f"is: {best}{undefended}."
    )


def _name(defence: str) -> str:
    return "no defence" if defence == "none" else defence


def _line(row: Row) -> list[str]:
    seconds = row.seconds_per_round
    return [
        row.run, row.data, row.attack_name, row.defence, row.model,
        f"{100 * row.attackers:g} %", "–" if row.seed is None else str(row.seed),
        str(row.rounds) + ("" if row.finished else " so far"),
        percent(row.final_asr), percent(row.max_asr), percent(row.clean_asr),
        percent(row.final_ma), percent(row.clean_ma), percent(row.tpr), percent(row.fpr),
        "–" if row.auroc is None else f"{row.auroc:.3f}",
        "–" if seconds is None else f"{seconds:.2f}", row.seen or "–",
    ]  # fmt: skip
