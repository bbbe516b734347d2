"""The report of a run: one HTML file that needs neither network nor server.

Every string is escaped by the template engine; what scripts need travels as JSON in which no
character can end the script element. Nothing in the page refers to anything outside it.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_shield.judge.verdict import Decision
from fl_shield.simulations.arms import ARMS
from fl_shield.simulations.final_section import Section, Subject, section_of
from fl_shield.simulations.run_folder import Arm, LoggedVerdict, RunFolder, read_run_folder
from fl_shield.simulations.wording import percent

TEMPLATE = "report.html.j2"

FINAL_MODELS = "final_models"
"""The plot that belongs to the section about the final model."""

MAX_VERDICTS = 6_000
"""Verdicts in the page, the latest ones; more would make it slow to open. The log has all."""

MAX_CLIENTS = 1_000
"""Clients in the page, the most suspicious ones."""


@dataclass(frozen=True)
class ClientRow:
    """What the report says of one client."""

    node_id: str
    client: int | None
    malicious: bool | None
    rounds: int
    held_back: int
    mean_score: float | None
    evidence: float | None
    reasons: str


def build_report(run_folder: str | Path) -> Path:
    """Write `report.html` into a run folder, finished or not, and return its path.

    Raises:
        DataError: if it is not the folder of a run.
    """
    from fl_shield.simulations.plots import plots_of

    run = read_run_folder(run_folder)
    judged = run.judged_arm
    verdicts = _verdict_rows(judged)
    clients = client_rows(judged) if judged else []
    plots = [
        {
            "title": plot.title,
            "how_to_read": plot.how_to_read,
            "svg": plot.inline_svg(),
            "name": plot.name,
        }
        for plot in plots_of(run)
    ]
    page = template(TEMPLATE).render(
        name=run.path.resolve().name,
        finished=run.finished,
        seed=run.seed,
        headline=headline(run),
        arms=[(_title(name), figures) for name, figures in _figures(run).items()],
        plots=[plot for plot in plots if plot["name"] != FINAL_MODELS],
        final=_final_models(run),
        final_plot=next((plot for plot in plots if plot["name"] == FINAL_MODELS), None),
        judged=_title(judged.name) if judged else "",
        clients=clients[:MAX_CLIENTS],
        num_clients=len(clients),
        verdicts_json=_script_safe(verdicts[-MAX_VERDICTS:]),
        num_verdicts=len(verdicts),
        max_verdicts=MAX_VERDICTS,
        config=run.config_text,
        versions=dict(run.summary.get("versions") or {}),
        command=_command(run),
        damage=run.damage,
    )
    target = run.path / "report.html"
    target.write_text(page, encoding="utf-8")
    return target


def template(name: str) -> Any:
    """Return a template of this package; it escapes every value that it is given."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fl_shield.simulations", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    environment.filters["number"] = _number
    return environment.get_template(name)


def headline(run: RunFolder) -> str:
    """Return what the run showed, in a sentence or two.

    Says only what was measured; a run without a defended arm gets a sentence without a shield.
    """
    figures = _figures(run)
    asr = {name: values.get("asr") for name, values in figures.items()}
    defended, undefended, clean = (asr.get(n) for n in ("defended", "undefended", "clean"))
    if defended is None:
        if undefended is None:
            return "This run has no attacked arm to report on yet."
        return (
            f"Without a defence, the attack succeeds on {percent(undefended)} of triggered inputs."
        )
    beside = [f"the clean run has {percent(clean)}"] if clean is not None else []
    beside += [f"without a defence it is {percent(undefended)}"] if undefended is not None else []
    sentence = f"With the shield, the attack succeeds on {percent(defended)} of triggered inputs"
    sentence += f" ({', '.join(beside)})." if beside else "."
    accuracies = [figures[n].get("main_accuracy") for n in ("defended", "clean") if n in figures]
    if len(accuracies) == 2 and None not in accuracies:
        sentence += (
            f" Main accuracy is {percent(accuracies[0])}, "
            f"against {percent(accuracies[1])} in the clean run."
        )
    return sentence


def client_rows(arm: Arm) -> list[ClientRow]:
    """Return a row a client, most often held back first, then by evidence."""
    by_client: dict[str, list[LoggedVerdict]] = defaultdict(list)
    for verdict in arm.verdicts:
        by_client[verdict.node_id].append(verdict)
    rows = [_client_row(arm, node_id, verdicts) for node_id, verdicts in by_client.items()]
    return sorted(rows, key=lambda row: (-row.held_back, -(row.evidence or 0.0), row.node_id))


def _client_row(arm: Arm, node_id: str, verdicts: Sequence[LoggedVerdict]) -> ClientRow:
    truth = arm.truth.get(node_id)
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    evidence = [verdict.evidence for verdict in verdicts if verdict.evidence is not None]
    named = Counter(
        reason.name for verdict in verdicts if verdict.flagged for reason in verdict.reasons
    )
    return ClientRow(
        node_id=node_id,
        client=None if truth is None else truth.partition_id,
        malicious=None if truth is None else truth.malicious,
        rounds=len(verdicts),
        held_back=sum(v.flagged or v.decision is Decision.REJECT for v in verdicts),
        mean_score=sum(scores) / len(scores) if scores else None,
        evidence=evidence[-1] if evidence else None,
        reasons=", ".join(name for name, _ in named.most_common(3)),
    )


def _verdict_rows(arm: Arm | None) -> list[list[Any]]:
    """Return verdicts as compact rows for the page's table."""
    rows = []
    for verdict in arm.verdicts if arm else ():
        truth = arm.truth.get(verdict.node_id) if arm else None
        why = ", ".join(f"{reason.name} {reason.value:+.1f}" for reason in verdict.reasons)
        rows.append(
            [
                verdict.round_number,
                verdict.node_id if truth is None else f"client {truth.partition_id}",
                None if truth is None else truth.malicious,
                verdict.decision.value,
                None if verdict.score is None else round(verdict.score, 2),
                None if verdict.evidence is None else round(verdict.evidence, 2),
                verdict.detail or why,
            ]
        )
    return rows


def _figures(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Return the final figures of each arm, from the summary or, without one, the last round."""
    runs = run.summary.get("runs")
    if isinstance(runs, dict) and runs:
        return {
            str(name): dict(values) for name, values in runs.items() if isinstance(values, dict)
        }
    return {
        arm.name: {"main_accuracy": arm.rounds[-1].main_accuracy, "asr": arm.rounds[-1].asr}
        for arm in run.arms
        if arm.rounds
    }


def _final_models(run: RunFolder) -> Section:
    subjects = [
        Subject(run.path, arm.name, (_title(arm.name),), arm.rounds[-1].asr, arm.rounds[-1].number)
        for arm in run.arms
        if arm.rounds
    ]
    return section_of(subjects, ("run",))


def _command(run: RunFolder) -> str:
    """Return the command that the run was started with."""
    file = run.path / "command.txt"
    if file.is_file():
        return file.read_text(encoding="utf-8", errors="replace").strip()
    return f"fl-shield simulate --resume {run.path}"


def _title(name: str) -> str:
    return ARMS[name].title if name in ARMS else name.replace("_", " ")


def _percent(value: object) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return percent(float(str(value)) if number else None)


def _number(value: object) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{float(str(value)):.2f}" if number else "–"


def _script_safe(value: object) -> str:
    """Return JSON that cannot end a script element, nor start a comment in one."""
    text = json.dumps(value, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
