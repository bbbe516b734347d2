"""Drives hostile rounds through the real strategies: `make results-hostile`.

The property of `tests/strategies/test_hostile_rounds.py`, over many more runs drawn by hypothesis,
in chunks whose seeds are their numbers. Finished chunks are kept under `runs/hostile`, so that an
interrupted drive goes on where it was. Writes `docs/results/hostile.json` and a page of tables.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr.supercore.task_identity import TaskIdentity
from hypothesis import HealthCheck, Phase, given, seed, settings
from rich.progress import track

from fl_shield.atomic import draft_of
from tests.strategies._hostile_rounds import PLANS, Plan, Tally, play
from tests.strategies._hostility import HOSTILE, KINDS, ODD

ROOT = Path(__file__).resolve().parents[1]
CHUNK = 200
"""Runs a chunk, of one to four rounds each."""


def drive(number: int) -> dict[str, Any]:
    """Play a chunk of runs and return its tally; `found` names the first run that broke a rule."""
    tally, found = Tally(), []

    @seed(number)
    @settings(
        max_examples=CHUNK,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # what breaks a rule is shrunk by the test, with its seed
        suppress_health_check=list(HealthCheck),
    )
    @given(PLANS)
    def runs(plan: Plan) -> None:
        play(plan, Path(folder), tally)

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            runs()
        except Exception as error:  # a broken rule: hypothesis has shrunk the run that breaks it
            notes = "\n".join(getattr(error, "__notes__", []))
            found.append(f"{type(error).__name__}: {error}\n{notes}"[:2000])
    return {**vars(tally), "found": found, "seconds": time.perf_counter() - started}


def summed(chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sums of all chunks."""
    total: dict[str, Any] = {"chunks": len(chunks)}
    for name in ("rounds", "empty", "seconds"):
        total[name] = sum(chunk[name] for chunk in chunks)
    for name in ("replies", "decisions", "reasons", "inner"):
        counts: Counter[str] = Counter()
        for chunk in chunks:
            counts.update(chunk[name])
        total[name] = dict(sorted(counts.items(), key=lambda item: -item[1]))
    total["found"] = [text for chunk in chunks for text in chunk["found"]]
    total["num_replies"] = sum(total["replies"].values())
    return total


def page(total: Mapping[str, Any], command: str) -> str:
    """Return the tables, as Markdown."""
    wrong = sum(total["replies"].get(kind, 0) for kind in HOSTILE)
    odd = sum(total["replies"].get(kind, 0) for kind in ODD)
    lines = [
        "# Hostile rounds",
        "",
        f"Written by `{command}`.",
        "",
        f"{total['rounds']:,} rounds with {total['num_replies']:,} nodes asked, of which {wrong:,} "
        f"sent a malformed reply and {odd:,} an odd one; {len(KINDS)} kinds of behaviour, "
        f"{len(total['inner'])} strategies behind the shield. Runs that broke a rule: "
        f"**{len(total['found'])}**.",
        "",
        "The rules: no exception; the model stays finite and of its shape; every node that was "
        "asked is named as judged, rejected or missing; a reply that must be rejected is, with a "
        "reason in the audit log; an honest reply never is; and the aggregate and all verdicts are "
        "bit for bit what they are without the rejected replies.",
        "",
        "| rejected because of | replies |",
        "|---|---:|",
        *(f"| {reason} | {count:,} |" for reason, count in total["reasons"].items()),
        "",
        "| strategy behind the shield | rounds |",
        "|---|---:|",
        *(f"| {name} | {count:,} |" for name, count in total["inner"].items()),
        "",
    ]
    return "\n".join(lines + [f"Broken:\n\n```\n{text}\n```\n" for text in total["found"]])


def main(arguments: Sequence[str] | None = None) -> None:
    """Drive, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=10_000, help="fewest rounds to drive")
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "hostile")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results")
    chosen = parser.parse_args(arguments)
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    for name in ("_run_id", "_task_id", "_node_id"):  # messages ask the process who it is
        setattr(TaskIdentity, name, 1)
    chosen.cache.mkdir(parents=True, exist_ok=True)
    chunks: list[dict[str, Any]] = []
    expected = -(-chosen.rounds // (2 * CHUNK))  # a run has two rounds or so
    for number in track(range(10 * expected), "Driving hostile rounds", total=expected):
        file = chosen.cache / f"{number:04d}.json"
        if not file.exists():
            found = drive(number)
            with draft_of(file) as draft:
                draft.write_text(json.dumps(found))
        chunks.append(json.loads(file.read_text()))
        if sum(chunk["rounds"] for chunk in chunks) >= chosen.rounds:
            break
    total = summed(chunks)
    chosen.output.mkdir(parents=True, exist_ok=True)
    (chosen.output / "hostile.json").write_text(json.dumps(total, indent=1) + "\n")
    (chosen.output / "hostile.md").write_text(page(total, "make results-hostile"))
    print(f"{total['rounds']} rounds, {len(total['found'])} runs broke a rule.")


if __name__ == "__main__":
    main()
