"""The figures of the cost benchmark as JSON, Markdown tables, and the targets in docs/cost.md."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.cost_figures import (
    BUDGET_BYTES,
    CONSTANT_SECONDS,
    MAX_COPIES,
    MAX_EXPONENT,
    MAX_RATIO,
    MAX_SHARE,
    Row,
    allowed_bytes,
    beyond_floor,
    exponent,
    kept_bytes,
    over_floor,
    per_client,
    verdict,
)
from benchmarks.cost_models import SIZES
from benchmarks.cost_plots import draw_costs
from benchmarks.marked_table import write_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
COMMAND = "make results-cost"

TITLES = {
    "shield": "fl_shield",
    "multi_krum": "MultiKrum (Flower)",
    "flame": "FLAME",
    "flare": "FLARE",
    "deepsight_256": "DeepSight, 3 x 256 noise inputs",
    "deepsight": "DeepSight, 3 x 20,000 noise inputs",
}
"""What tables call a defence."""


def write_results(rows: Sequence[Row]) -> None:
    """Write JSON, tables and plot, and the targets into docs/cost.md."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    record = {
        "command": COMMAND,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "targets": targets(rows),
        "rows": [_rounded(row) for row in rows],
    }
    (RESULTS / "cost.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    draw_costs(rows, TITLES, RESULTS / "cost.png")
    page = [
        "# What the shield costs",
        f"Written by `{COMMAND}`. Processor time of one thread; the making of the clients' weights "
        "is not counted. *Floor*: plain forward passes of as many samples through the same model.",
        "## Targets", targets_table(rows), "![Time by clients](cost.png)",
        "## Time of the shield", shield_table(rows),
        "## Memory of a round, beyond the global model", memory_table(rows),
        "## A decision of each defence, over one of the shield on the same cohort",
        rivals_table(rows),
        "## Against local training", training_table(rows),
        "## Left out", left_out(rows),
    ]  # fmt: skip
    (RESULTS / "cost.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")
    write_table(ROOT / "docs" / "cost.md", "cost-table", targets_table(rows))
    print(targets_table(rows))


def targets(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return what was to be reached: name, limit, the worst value measured, and the verdict."""
    shield = _measured(rows, "shield")
    found: list[tuple[str, float, float | None]] = []
    beyond = [1e3 * beyond_floor(row) for row in shield]
    name = f"time of one more client beyond {MAX_RATIO:g} floors, in ms"
    found.append((name, 1e3 * CONSTANT_SECONDS, max(beyond, default=None)))
    growth = [growth_of(rows, "shield", model) for model in SIZES]
    known = [value for value in growth if value is not None]
    found.append(("exponent of time over clients", MAX_EXPONENT, max(known, default=None)))
    memory = [row["peak_bytes"] / allowed_bytes(row["parameters"]) for row in shield]
    budget = BUDGET_BYTES >> 20
    name = f"peak memory, over {MAX_COPIES:g} models + {budget} MiB"
    found.append((name, 1.0, max(memory, default=None)))
    for row in _measured(rows, "round"):
        for probes, share in shares(row).items():
            name = f"share of a round, {probes} clean samples, {row['samples']} samples a client"
            found.append((name, MAX_SHARE, share))
    if not _measured(rows, "round"):
        found.append(("share of a round of real training", MAX_SHARE, None))
    for rival in ("deepsight", "deepsight_256", "flare"):
        pairs = [
            ours["seconds"] / theirs["seconds"]
            for theirs in _measured(rows, "rival", rival)
            for ours in shield
            if (ours["model"], ours["clients"]) == (theirs["model"], theirs["clients"])
        ]
        found.append((f"time over that of {TITLES[rival]}", 1.0, max(pairs, default=None)))
    return [
        {"target": name, "limit": limit, "worst": value, "verdict": verdict(value, limit)}
        for name, limit, value in found
    ]


def shares(row: Row) -> dict[int, float]:
    """Return the shield's share of a round by number of clean samples."""
    rest = row["training_seconds"] + row["averaging_seconds"]
    shield = {probes: row[f"shield_seconds_{probes}"] for probes in row["probes"]}
    return {probes: seconds / (seconds + rest) for probes, seconds in shield.items()}


def growth_of(rows: Sequence[Row], kind: str, model: str) -> float | None:
    """Return the exponent of a defence's time over clients with one model."""
    own = [r for r in rows if _title(r) == kind and r["model"] == model and "left_out" not in r]
    return exponent([r["clients"] for r in own], [per_client(r) * r["clients"] for r in own])


def targets_table(rows: Sequence[Row]) -> str:
    """Return the targets with the worst value of all cells."""
    lines = []
    for entry in targets(rows):
        worst = "–" if entry["worst"] is None else f"{entry['worst']:.3g}"
        lines.append([entry["target"], f"≤ {entry['limit']:g}", worst, entry["verdict"]])
    return _markdown(["what", "to reach", "worst measured", ""], lines)


def shield_table(rows: Sequence[Row]) -> str:
    """Return the shield's time against its floor, and what it is spent on."""
    lines = []
    for row in _measured(rows, "shield"):
        total, floor = row["seconds"], row["floor_seconds_per_client"]
        lines.append([
            _model(row), str(row["clients"]), str(row["samples_per_client"]),
            f"{1e3 * floor:.1f} ms", f"{1e3 * per_client(row):.1f} ms",
            f"{over_floor(row):.2f}", f"{row['search_seconds'] / floor:.1f} floors",
            f"{100 * row['candidate_seconds'] / total:.0f} %",
            f"{100 * row['judge_seconds'] / total:.0f} %",
        ])  # fmt: skip
    heads = ["model", "clients", "samples a client", "floor a client", "shield a client", "ratio",
             "search, once a round", "candidates' share", "detector's share"]  # fmt: skip
    slopes = [
        f"{SIZES[model].title} {value:.2f}"
        for model in SIZES
        if (value := growth_of(rows, "shield", model)) is not None
    ]
    return _markdown(heads, lines) + f"\n\nExponent of time over clients: {', '.join(slopes)}."


def memory_table(rows: Sequence[Row]) -> str:
    """Return peak memory against model size and number of clients."""
    lines = [
        [
            _model(row), str(row["clients"]), _mib(4 * row["parameters"]), _mib(row["peak_bytes"]),
            _mib(row["describe_peak_bytes"]), _mib(allowed_bytes(row["parameters"])),
        ]
        for row in _measured(rows, "shield")
    ]  # fmt: skip
    heads = ["model", "clients", "one model", "peak", "of it before scoring", "allowed"]
    table = _markdown(heads, lines)
    small = [row for row in _measured(rows, "shield") if row["model"] == next(iter(SIZES))]
    kept = kept_bytes(small)
    if kept is not None:
        table += f"\n\nWhat is kept of one more client: {kept / 1024:.0f} KiB."
    return table


def rivals_table(rows: Sequence[Row]) -> str:
    """Return the time of every defence over that of the shield; below 1 it is quicker."""
    ours = {(r["model"], r["clients"]): r for r in _measured(rows, "shield")}
    lines = []
    for rival, title in TITLES.items():
        theirs = {(r["model"], r["clients"]): r for r in _measured(rows, "rival", rival)}
        if rival != "shield":
            cells = [
                f"{theirs[key]['seconds'] / ours[key]['seconds']:.3g}" if key in theirs else "–"
                for key in ours
            ]
            lines.append([title, *cells])
    heads = [f"{SIZES[model].title}, {clients}" for model, clients in ours]
    return _markdown(["defence", *heads], lines)


def training_table(rows: Sequence[Row]) -> str:
    """Return the shield's time for a client over an epoch of it, and shares of a real round."""
    lines = []
    for row in _measured(rows, "training"):
        same = [r for r in _measured(rows, "shield") if r["model"] == row["model"]]
        if same:
            ratio = per_client(same[-1]) / row["seconds"]
            samples = f"{row['samples']}, batches of {row['batch_size']}"
            lines.append([_model(row), "one epoch", samples, f"{100 * ratio:.1f} % of it"])
    for row in _measured(rows, "round"):
        for probes, share in shares(row).items():
            what = f"round of {row['clients']} clients, {probes} clean samples"
            samples = f"{row['samples_of_a_client']}, batches of {row['batch_size']}"
            lines.append([_model(row), what, samples, f"{100 * share:.1f} % of the round"])
    return _markdown(["model", "of what", "samples of a client", "the shield takes"], lines)


def left_out(rows: Sequence[Row]) -> str:
    """Return the cells that were not measured, each with the reason."""
    lines = [
        f"* {TITLES.get(_title(row), row['kind'])}, {_model(row)}, "
        f"{row.get('clients', '')} clients: {row['left_out']}."
        for row in rows
        if "left_out" in row
    ]
    return "\n".join(lines) or "Nothing."


def _measured(rows: Sequence[Row], kind: str, rival: str | None = None) -> list[Row]:
    found = [
        row
        for row in rows
        if row["kind"] == kind and row.get("rival") == rival and "left_out" not in row
    ]
    sizes = list(SIZES)
    return sorted(found, key=lambda row: (sizes.index(row["model"]), row.get("clients", 0)))


def _title(row: Row) -> str:
    return str(row.get("rival", row["kind"]))


def _model(row: Row) -> str:
    return f"{SIZES[row['model']].title} ({row['parameters'] / 1e6:.2g} M)"


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"


def _markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    out = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join([*out, *("| " + " | ".join(line) + " |" for line in lines)])


def _rounded(row: Row) -> dict[str, Any]:
    return {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in row.items()}
