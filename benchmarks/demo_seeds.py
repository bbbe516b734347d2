"""The demonstration over five seeds, held against its targets.

    python benchmarks/demo_seeds.py

Runs `fl-shield simulate experiment=demo seed=s` for seeds 0 to 4 (finished ones are kept, so it can
be stopped and started again), and writes `docs/results/demo.json`, a Markdown table beside it, and
the same table between the markers in README.md. No figure in these is typed by hand.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.marked_table import write_table

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs"
RESULTS = ROOT / "docs" / "results"
SEEDS = range(5)
COLUMNS = (
    ("clean", "main_accuracy"),
    ("clean", "asr"),
    ("undefended", "main_accuracy"),
    ("undefended", "asr"),
    ("defended", "main_accuracy"),
    ("defended", "asr"),
    ("defended", "tpr"),
    ("defended", "fpr"),
    ("defended", "shield_share"),
)


def run_seed(seed: int) -> dict[str, Any]:
    """Return the summary of a seed, running or resuming it if it is not finished."""
    folder = RUNS / f"demo-seed{seed}"
    summary = folder / "summary.json"
    if not (summary.is_file() and json.loads(summary.read_text())["finished"]):
        command = [sys.executable, "-m", "fl_shield.simulations.cli", "simulate"]
        started = (folder / "arms").exists()
        command += (
            ["--resume", str(folder)]
            if started
            else ["experiment=demo", f"seed={seed}", f"output_root={RUNS}"]
        )
        subprocess.run(command, cwd=ROOT, check=True)
    loaded: dict[str, Any] = json.loads(summary.read_text())
    return loaded


def verdicts(runs: dict[str, dict[str, float]]) -> dict[str, bool]:
    """Return which targets a seed meets."""
    clean, undefended, defended = (runs[arm] for arm in ("clean", "undefended", "defended"))
    return {
        "undefended ASR >= 0.80": undefended["asr"] >= 0.80,
        "defended ASR <= clean ASR + 0.02": defended["asr"] <= clean["asr"] + 0.02,
        "defended MA >= clean MA - 0.01": defended["main_accuracy"]
        >= clean["main_accuracy"] - 0.01,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the Markdown table of all seeds and their mean."""
    heads = [f"{arm} {key}".replace("_", " ").replace("asr", "ASR") for arm, key in COLUMNS]
    heads = [
        h.replace("main accuracy", "MA").replace("tpr", "TPR").replace("fpr", "FPR") for h in heads
    ]
    lines = ["| seed | " + " | ".join(heads) + " | targets |", "|---" * (len(COLUMNS) + 2) + "|"]
    for row in rows:
        cells = [f"{100 * row['runs'][arm][key]:.1f} %" for arm, key in COLUMNS]
        missed = [name for name, met in row["targets"].items() if not met]
        verdict = "met" if not missed else "missed: " + "; ".join(missed)
        lines.append(f"| {row['seed']} | " + " | ".join(cells) + f" | {verdict} |")
    means = [
        f"{100 * statistics.fmean(row['runs'][arm][key] for row in rows):.1f} %"
        for arm, key in COLUMNS
    ]
    lines.append("| mean | " + " | ".join(means) + " | |")
    return "\n".join(lines)


def main() -> None:
    rows = []
    for seed in SEEDS:
        summary = run_seed(seed)
        rows.append({"seed": seed, "runs": summary["runs"], "targets": verdicts(summary["runs"])})
        versions = summary["versions"]
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = table(rows)
    record = {"command": "make results-demo", "versions": versions, "seeds": rows}
    (RESULTS / "demo.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    note = "Written by `make results-demo` (seeds 0 to 4).\n\n"
    (RESULTS / "demo.md").write_text(f"# The demonstration\n\n{note}{text}\n", encoding="utf-8")
    write_table(ROOT / "README.md", "demo-table", text)
    print(text)


if __name__ == "__main__":
    main()
