"""`fl-shield audit`: looks at captured rounds, or at the audit log of a running shield, again.

Exit status: 0 if nobody is suspected, 3 if somebody is, 2 if a file or option is wrong.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_shield.simulations.audit_counterfactual import add_options, compare
from fl_shield.simulations.audit_models import add_model_options

if TYPE_CHECKING:
    from rich.console import Console

    from fl_shield.auditing import ClientSummary, Finding, NodeSummary
    from fl_shield.detector import Detector
    from fl_shield.judge.verdict import Reason

EXIT_SUSPECTS = 3
"""Exit status when at least one client is suspected."""

FORMAT, VERSION = "fl_shield.audit", 1

PLAIN_WIDTH = 132
"""Columns of the table in a file or a pipe: reasons are long."""

CAPTURES_ONLY = (
    "model", "model_file", "probes", "detector", "final_layer", "threshold", "evidence_threshold",
    "device",
)  # fmt: skip
"""Options that mean nothing to an audit log."""

HELP = """\
Judge captured rounds again, away from the server, or sum up the audit log of a shield.

  fl-shield audit CAPTURE --model my_model:Net --probes probes.safetensors
      CAPTURE is a folder written by MetaShield(…, capture=DIR): one round, or DIR with all of them,
      over which evidence accumulates. Net() must return the model that was trained.
  fl-shield audit CAPTURE --model-file model.pt2 --probes probes.safetensors
      The model as torch.export.save wrote it (eval mode, dynamic batch size). TorchScript is not
      taken: nothing but logits can be read from it.
  fl-shield audit audit.jsonl
      The log written by MetaShield(…, audit_log=FILE): a line a node.
  fl-shield audit audit.jsonl --captures DIR --write-models OUT
      And what the model would have been in each captured round, had everybody been averaged in.
  fl-shield audit --model my_model:Net --weights net.safetensors --clean DIR
      A whole model, judged with clean samples: a folder of images, one sub-folder a class, or an
      .npz or safetensors file with `inputs` and `labels`. docs/repair.md says more.
  fl-shield audit runs/NAME
      The final global model of each arm of a simulation, judged with the server's probes.

Probes are clean samples in the form the model takes: a safetensors file with a tensor `inputs`, or
with `input_ids`, `attention_mask` and what else the model takes by name, and with `labels` or not.
"""

EPILOG = """\
exit status: 0 nobody is suspected, 3 somebody is, 2 a file or an option is wrong, 1 anything else.
docs/auditing.md says more, also of the fields of --json.
"""


def add_audit_command(commands: Any) -> None:
    """Add the subcommand to a parser's subcommands."""
    audit = commands.add_parser(
        "audit",
        help="judge captured rounds again, or sum up a shield's audit log",
        description=HELP,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    audit.add_argument(
        "source",
        metavar="CAPTURE|LOG|RUN",
        nargs="?",
        help="folder of a capture, audit log, or run folder of a simulation",
    )
    audit.add_argument("--model", metavar="MODULE:FACTORY", help="code that makes the model")
    audit.add_argument("--model-file", metavar="FILE", help="model written by torch.export.save")
    audit.add_argument("--probes", metavar="FILE", help="safetensors file of clean samples")
    audit.add_argument(
        "--detector", metavar="DIR", help="folder of a trained detector (default: the package's)"
    )
    audit.add_argument(
        "--final-layer", metavar="NAME", help="final layer, when it is not found by itself"
    )
    audit.add_argument(
        "--threshold", type=float, metavar="X",
        help="score of one round from which a client is suspected (default: the detector's)",
    )  # fmt: skip
    audit.add_argument(
        "--evidence-threshold", type=float, metavar="X",
        help="accumulated evidence from which a client is suspected (default: the shield's)",
    )  # fmt: skip
    audit.add_argument("--device", metavar="NAME", help="where the model runs, for example cuda")
    audit.add_argument("--json", metavar="FILE", help="also write the findings as JSON; - prints")
    add_model_options(audit)
    add_options(audit)
    audit.set_defaults(run=run_audit)


def run_audit(options: argparse.Namespace) -> int:
    """Run the command and return its exit status.

    Raises:
        FlShieldError: in one sentence, if a file or an option is wrong.
    """
    report, suspects = _audit(options)
    if options.json not in (None, "-"):
        _write(Path(options.json).expanduser(), report)
    elif options.json == "-":
        print(json.dumps(report, indent=1, allow_nan=False))
    return EXIT_SUSPECTS if suspects else 0


def _audit(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Audit whatever was named; return the report and the number of suspects."""
    from fl_shield.errors import ConfigurationError, expected
    from fl_shield.simulations.audit_models import audit_models, refuse_model_options
    from fl_shield.simulations.audit_run import audit_run, is_run_folder

    if options.clean is not None:
        report, suspects = audit_models(options)
        return {"format": FORMAT, "version": VERSION, **report}, suspects
    if options.source is not None and is_run_folder(folder := Path(options.source).expanduser()):
        report, suspects = audit_run(folder, options)
        return {"format": FORMAT, "version": VERSION, **report}, suspects
    refuse_model_options(options)
    if options.source is None:
        raise ConfigurationError(
            "Nothing to audit: name a folder of captures or an audit log, or judge a whole model "
            "with --model, --weights and --clean."
        )
    source = Path(options.source).expanduser()
    if not source.exists():
        raise ConfigurationError(
            expected("audit", "a folder of captures or an audit log", str(source))
        )
    if source.is_file() and source.name != "manifest.json":
        return _audit_log(source, options)
    return _audit_captures(source.parent if source.is_file() else source, options)


def _audit_captures(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from fl_shield.auditing import (
        audit_captures,
        audit_policy,
        find_captures,
        summarise_findings,
    )
    from fl_shield.detector import columns_of
    from fl_shield.errors import ConfigurationError, expected
    from fl_shield.inspection import Inspector
    from fl_shield.probes.probe_set import MAX_PROBES
    from fl_shield.simulations.audit_inputs import import_model, read_model, read_probes

    if (options.model is None) == (options.model_file is None):
        raise ConfigurationError(
            "Expected either --model module:factory or --model-file FILE, got "
            f"{'neither' if options.model is None else 'both'}. A capture holds weights only."
        )
    if options.probes is None:
        raise ConfigurationError(
            expected("--probes", "a safetensors file of clean samples", "none")
        )
    for name in ("threshold", "evidence_threshold"):
        limit = getattr(options, name)
        if limit is not None and not math.isfinite(limit):
            option = f"--{name.replace('_', '-')}"
            raise ConfigurationError(expected(option, "a finite number", limit))
    captures = find_captures(folder)
    detector = _detector(options.detector)
    probes = read_probes(Path(options.probes).expanduser())
    if options.model is not None:
        model = import_model(options.model)
    else:
        model = read_model(Path(options.model_file).expanduser(), probes)
    inspector = Inspector(
        model, probes.limited(MAX_PROBES), columns=columns_of(detector),
        final_layer=options.final_layer, device=_device(options.device),
    )  # fmt: skip
    policy = audit_policy(detector, options.threshold, options.evidence_threshold)
    findings = audit_captures(captures, inspector, detector, policy)
    clients = summarise_findings(findings)
    suspects = [client for client in clients if client.suspected_rounds]
    if options.json != "-":
        console = _console()
        _print_clients(console, clients, rounds=len(captures))
        _print_notes(console, findings, detector.name, policy.threshold, len(clients))
    report = {
        "format": FORMAT,
        "version": VERSION,
        "source": str(folder),
        "detector": detector.name,
        "threshold": policy.threshold,
        "evidence_threshold": policy.evidence_threshold,
        "suspects": [str(client.client_id) for client in suspects],
        "clients": [_client_record(client) for client in clients],
        "findings": [_finding_record(finding) for finding in findings],
    }
    return report, len(suspects)


def _audit_log(file: Path, options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from fl_shield.audit import read_audit
    from fl_shield.auditing import summarise_log
    from fl_shield.errors import ConfigurationError

    for name in CAPTURES_ONLY:
        if getattr(options, name) is not None:
            raise ConfigurationError(
                f"--{name.replace('_', '-')} goes with a folder of captures; {file} is a file, "
                "read as an audit log, which holds verdicts and no weights."
            )
    records = read_audit(file)
    nodes = summarise_log(records)
    suspects = [node for node in nodes if node.suspected]
    if options.json != "-":
        console = _console()
        _print_nodes(console, nodes)
        rounds = len({record["round"] for record in records})
        console.print(
            f"{len(records)} verdicts of {rounds} rounds on {len(nodes)} nodes; "
            f"{len(suspects)} suspected in any round."
        )
    report = {
        "format": FORMAT,
        "version": VERSION,
        "source": str(file),
        "suspects": [node.node_id for node in suspects],
        "nodes": [{**asdict(node), "suspected": node.suspected} for node in nodes],
    }
    if options.captures is not None:
        report["rounds"] = compare(records, options, None if options.json == "-" else _console())
    return report, len(suspects)


def _detector(folder: str | None) -> Detector:
    from fl_shield.detector import default_detector, load_detector

    return default_detector() if folder is None else load_detector(Path(folder).expanduser())


def _device(name: str | None) -> str | None:
    import torch

    from fl_shield.errors import ConfigurationError, expected

    if name is not None:
        try:
            torch.empty(1, device=name)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigurationError(
                expected("--device", "a device of this machine", name, f"{reason}")
            ) from error
    return name


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)


def _print_clients(console: Console, clients: Sequence[ClientSummary], rounds: int) -> None:
    from rich.markup import escape
    from rich.table import Table

    several = rounds > 1
    table = Table(title=f"{rounds} captured rounds" if several else None, title_justify="left")
    table.add_column("client", no_wrap=True)
    if several:
        table.add_column("suspected", justify="right")
    table.add_column("examples", justify="right")
    table.add_column("top score" if several else "score", justify="right")
    table.add_column("evidence", justify="right")
    table.add_column("verdict")
    table.add_column("reasons (robust z)", ratio=1, overflow="fold")
    for client in clients:
        is_suspect = bool(client.suspected_rounds)
        cells = [
            str(client.client_id),
            *([f"{len(client.suspected_rounds)} of {len(client.rounds)}"] if several else []),
            f"{client.last.num_examples:g}",
            _number(client.worst.score),
            _number(client.last.evidence),
            _verdict(client),
            escape(_reasons(client.worst.reasons)),
        ]
        table.add_row(*cells, style="bold red" if is_suspect else None)
    console.print(table)


def _print_notes(
    console: Console, findings: Sequence[Finding], detector: str, threshold: float, clients: int
) -> None:
    from fl_shield.auditing import MIN_CLIENTS

    suspects = {finding.client_id for finding in findings if finding.suspected}
    console.print(
        f"{len(suspects)} of {clients} clients suspected from score {threshold:.3g}. "
        f"Detector: {detector}.",
        markup=False,
        soft_wrap=True,
    )
    small = sorted({f.round_number for f in findings if f.evidence is None})
    if small:
        console.print(
            f"Not judged: round {', '.join(map(str, small))}. Fewer than {MIN_CLIENTS} clients are "
            "too few to compare.",
            soft_wrap=True,
        )


def _print_nodes(console: Console, nodes: Sequence[NodeSummary]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    table.add_column("node", no_wrap=True)
    for name in ("rounds", "dropped", "reduced", "spared", "rejected", "top score", "evidence"):
        table.add_column(name, justify="right")
    table.add_column("main reasons (robust z)", ratio=1, overflow="fold")
    for node in nodes:
        counts = (node.rounds, node.dropped, node.downweighted, node.spared, node.rejected)
        table.add_row(
            escape(node.node_id),
            *map(str, counts),
            _number(node.highest_score),
            _number(node.last_evidence),
            escape(_reasons(node.reasons) or node.last_detail),
            style="bold red" if node.suspected else None,
        )
    console.print(table)


def _verdict(client: ClientSummary) -> str:
    if client.suspected_rounds:
        return "suspected"
    return "not judged" if client.last.evidence is None else "kept"


def _client_record(client: ClientSummary) -> dict[str, Any]:
    return {
        "client": str(client.client_id),  # 64-bit ids do not survive JSON numbers
        "rounds": list(client.rounds),
        "suspected_rounds": list(client.suspected_rounds),
        "verdict": _verdict(client),
        "examples": client.last.num_examples,
        "top_score": client.worst.score,
        "evidence": client.last.evidence,
        "reasons": [asdict(reason) for reason in client.worst.reasons],
    }


def _finding_record(finding: Finding) -> dict[str, Any]:
    return {
        "round": finding.round_number,
        "client": str(finding.client_id),
        "examples": finding.num_examples,
        "score": finding.score,
        "evidence": finding.evidence,
        "suspected": finding.suspected,
        "reasons": [asdict(reason) for reason in finding.reasons],
    }


def _write(file: Path, report: dict[str, Any]) -> None:
    from fl_shield.atomic import draft_of
    from fl_shield.errors import ConfigurationError, expected

    text = json.dumps(report, indent=1, allow_nan=False)
    try:
        with draft_of(file) as draft:
            draft.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            expected("--json", "a file that can be written", str(file), f"{error}.")
        ) from error


def _reasons(reasons: Sequence[Reason]) -> str:
    return ", ".join(f"{reason.name} {reason.value:+.1f}" for reason in reasons)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"
