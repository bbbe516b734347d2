"""What the shield costs, as ratios: against plain forward passes, training and other defences.

    python -m benchmarks.cost --data ../shared/data

Every cell is measured by one thread of a process of its own and kept under `runs/cost`: it can be
stopped and started again. Writes `docs/results/cost.json`, tables and a plot beside it, and the
targets into `docs/cost.md`. Cells that would take more than ten minutes or more memory than a small
machine has are left out, and named.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from benchmarks.cost_figures import MAX_BYTES, MAX_SECONDS, held_bytes, predicted_seconds
from benchmarks.cost_models import SIZES, parameters_of
from benchmarks.cost_page import write_results

ROOT = Path(__file__).resolve().parent.parent
STORE = ROOT / "runs" / "cost"
CLIENTS = (10, 100, 1000)
RIVALS = ("multi_krum", "flame", "flare", "deepsight_256", "deepsight")
PROBES, MANY_PROBES = 16, 64
"""Probes: the shield's default, with which the detector was trained, and four times as many."""

SAMPLES = 500
"""Samples of a client: the 10,000 training images at hand, over 20 clients."""

ROUND_CLIENTS = 20
GROWTH = {"flare": 2.0, "multi_krum": 2.0, "flame": 2.0}
"""Exponents at which a cell's time is foreseen; defences of all pairs are quadratic."""

Cell = dict[str, Any]


def cells(data: Path) -> Iterator[Cell]:
    """Yield every cell, those of few clients first."""
    for clients in CLIENTS:
        for model in SIZES:
            yield {"kind": "shield", "model": model, "clients": clients, "probes": PROBES}
            for rival in RIVALS:
                yield {
                    "kind": "rival", "rival": rival, "model": model, "clients": clients,
                    "probes": PROBES,
                }  # fmt: skip
        if clients == CLIENTS[0]:
            for model in SIZES:
                yield {"kind": "training", "model": model, "samples": SAMPLES}
    yield {
        "kind": "round", "model": "large", "clients": ROUND_CLIENTS, "samples": SAMPLES,
        "probes": [PROBES, MANY_PROBES], "data": str(data.absolute()),
        "store": str(STORE / "round"),
    }  # fmt: skip


def name_of(cell: Cell) -> str:
    """Return the file name of a cell's row."""
    keys = ("kind", "rival", "model", "clients", "samples")
    return "-".join(str(cell[key]) for key in keys if key in cell)


def row_of(cell: Cell, rows: list[Cell], parameters: dict[str, int], *, measure: bool) -> Cell:
    """Return the row of a cell: kept, measured now, or the reason why it is left out."""
    public = {k: v for k, v in cell.items() if k not in ("data", "store")}
    file = STORE / f"{name_of(cell)}.json"
    if file.is_file():
        return public | dict(json.loads(file.read_text(encoding="utf-8")))
    reason = _too_much(cell, rows, parameters[cell["model"]])
    if reason is None and not measure:
        reason = "still to be measured"
    if reason is not None:
        return public | {"left_out": reason}
    command = [sys.executable, "-m", "benchmarks.cost_cells", json.dumps(cell)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{name_of(cell)} failed:\n{done.stderr[-2000:]}")
    row: Cell = json.loads(done.stdout.splitlines()[-1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return public | row


def _too_much(cell: Cell, rows: list[Cell], parameters: int) -> str | None:
    """Return why a cell cannot be measured here, None if it can."""
    rival = cell.get("rival")
    if rival is not None:
        held = held_bytes(rival, cell["clients"], parameters, cell["probes"])
        if held > MAX_BYTES:
            return f"holds about {held / 2**30:.0f} GiB at once"
    if "clients" not in cell or cell["kind"] == "round":
        return None
    same = [
        r for r in rows
        if all(r.get(k) == cell.get(k) for k in ("kind", "rival", "model"))
        and r["clients"] < cell["clients"] and "left_out" not in r
    ]  # fmt: skip
    ours = [
        r for r in rows
        if r["kind"] == "shield" and r["model"] == cell["model"] and "left_out" not in r
    ]  # fmt: skip
    fewer = max(same, key=lambda r: int(r["clients"]), default=None)
    seconds = predicted_seconds(cell, fewer, ours[0] if ours else None, GROWTH.get(str(rival), 1.0))
    if seconds is not None and seconds > MAX_SECONDS:
        return f"takes about {seconds / 60:.0f} min of one processor"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument(
        "--only", default="*", help="measure only cells of such names, with * and ?"
    )
    options = parser.parse_args()
    parameters = {name: parameters_of(size.model()) for name, size in SIZES.items()}
    rows: list[Cell] = []
    for cell in cells(options.data):
        wanted = fnmatch(name_of(cell), options.only)
        row = row_of(cell, rows, parameters, measure=wanted)
        rows.append(row | {"parameters": parameters[cell["model"]]})
        print(name_of(cell), row.get("left_out", "measured"), flush=True)
    write_results(rows)


if __name__ == "__main__":
    main()
