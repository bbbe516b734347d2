"""`fl-shield audit LOG --captures DIR`: what the model would have been without the verdicts.

For every round that is both in the log and captured, the weighted average of what passed and of
everything, their distance, and on request both models as safetensors.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from fl_shield.counterfactual import Counterfactual

OPTIONS = ("captures", "write_models", "max_client_share")


def add_options(audit: argparse.ArgumentParser) -> None:
    """Add the options to the parser of `fl-shield audit`."""
    audit.add_argument(
        "--captures", metavar="DIR",
        help="with a log: captures of its rounds, to say what the model would have been",
    )  # fmt: skip
    audit.add_argument(
        "--write-models", metavar="DIR",
        help="with --captures: write both models of every round as safetensors",
    )  # fmt: skip
    audit.add_argument(
        "--max-client-share", type=float, metavar="X",
        help="with --captures: the shield's bound of one client's share (default: the shield's)",
    )  # fmt: skip


def compare(
    records: Sequence[Mapping[str, Any]], options: argparse.Namespace, console: Console | None
) -> list[dict[str, Any]]:
    """Print a line a captured round of the log, and return them as JSON-ready records.

    Args:
        records: Verdicts of the log.
        options: Of the command line; `captures` is given.
        console: Where to print, None for nowhere.

    Raises:
        FlShieldError: if a capture is damaged, an option wrong, or no captured round in the log.
    """
    from fl_shield.auditing import find_captures
    from fl_shield.cohort_io import replay
    from fl_shield.counterfactual import counterfactual
    from fl_shield.errors import ConfigurationError, expected
    from fl_shield.strategies.shield_core import MAX_CLIENT_SHARE

    share = MAX_CLIENT_SHARE if options.max_client_share is None else options.max_client_share
    if not 0.0 < share <= 1.0:
        raise ConfigurationError(expected("--max-client-share", "above 0 and at most 1", share))
    weights: dict[int, dict[int, float]] = {}
    for record in records:
        if record["decision"] != "reject":
            own = weights.setdefault(int(record["round"]), {})
            own[int(record["node_id"])] = float(record["weight"])
    found = []
    for folder in find_captures(Path(options.captures).expanduser()):
        cohort = replay(folder)
        if cohort.round_number in weights:
            result = counterfactual(cohort, weights[cohort.round_number], share)
            found.append(_record(result))
            if options.write_models is not None:
                _write(Path(options.write_models).expanduser(), result)
    if not found:
        raise ConfigurationError(
            expected("--captures", "captures of rounds that are in the log", options.captures)
        )
    if console is not None:
        _print(console, found)
    return found


def _record(result: Counterfactual) -> dict[str, Any]:
    return {
        "round": result.round_number,
        "held_back": [str(node) for node in result.held_back],  # 64-bit ids do not survive JSON
        "step": result.step,
        "distance": result.distance,
        "kept_old_model": result.passed is None,
    }


def _write(folder: Path, result: Counterfactual) -> None:
    from fl_shield.cohort_io import write_arrays

    folder.mkdir(parents=True, exist_ok=True)
    name = f"round-{result.round_number:06d}"
    write_arrays(folder / f"{name}-everybody.safetensors", result.everybody)
    if result.passed is not None:
        write_arrays(folder / f"{name}-passed.safetensors", result.passed)


def _print(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="What the model would have been", title_justify="left")
    for name in ("round", "held back", "step of everybody", "moved by the verdicts"):
        table.add_column(name, justify="right")
    table.add_column("nodes", ratio=1, overflow="fold")
    for record in found:
        share = record["distance"] / record["step"] if record["step"] > 0 else 0.0
        table.add_row(
            str(record["round"]),
            str(len(record["held_back"])),
            f"{record['step']:.3g}",
            f"{share:.0%}",
            escape(", ".join(record["held_back"])),
            style="bold" if record["held_back"] else None,
        )
    console.print(table)
    console.print(
        "Steps are of the weighted average of all captured updates; the last column but one is the "
        "distance between that average and the one of what passed, in steps.",
        soft_wrap=True,
    )
