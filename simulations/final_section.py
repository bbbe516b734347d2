"""The section on final models in both reports: rows, notes, and a hint where nobody has looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fl_shield.errors import StateError
from fl_shield.simulations.final_models import (
    FinalModel,
    FinalModels,
    InputFinding,
    ModelFinding,
    audit_command,
    read_final_models,
)
from fl_shield.simulations.wording import percent

ONLY_INPUTS = (
    "No model was judged as a whole: no scanner for that was named, and by default there is one "
    "for images alone."
)


@dataclass(frozen=True)
class Subject:
    """The final model that a row of the section is about.

    Attributes:
        folder: The run folder.
        arm: Name of the arm.
        labels: What the row begins with; as many as the section has headings.
        asr: Attack success rate of the model, None if it was not measured.
        round: The last round that was recorded.
    """

    folder: Path
    arm: str
    labels: tuple[str, ...]
    asr: float | None
    round: int


@dataclass(frozen=True)
class Line:
    """A row: the subject's labels and the scanner, further cells, and whether it is suspected."""

    labels: tuple[str, ...]
    cells: tuple[str, ...]
    suspected: bool | None = None


@dataclass(frozen=True)
class Section:
    """What a page says of final models.

    Attributes:
        headings: Of the labels.
        models: A line for each model and scanner of whole models.
        inputs: A line for each model and scanner of inputs.
        notes: Sentences on how far the findings go.
        missing: What has not been scanned, in words; empty if all has.
        command: The command that scans it.
        damage: Sentences about findings that cannot be read.
    """

    headings: tuple[str, ...]
    models: tuple[Line, ...]
    inputs: tuple[Line, ...]
    notes: tuple[str, ...]
    missing: str
    command: str
    damage: tuple[str, ...]


def section_of(subjects: Sequence[Subject], headings: tuple[str, ...]) -> Section:
    """Return the section about the final models of some runs.

    Args:
        subjects: The models, those of a run beside each other.
        headings: Of the subjects' labels.
    """
    folders = list(dict.fromkeys(subject.folder for subject in subjects))
    findings, damage = _read(folders)
    models: list[Line] = []
    inputs: list[Line] = []
    notes: list[str] = []
    unscanned: list[Subject] = []
    for subject in subjects:
        found = findings.get(subject.folder)
        model = None if found is None else _model_of(found, subject.arm)
        if model is None:
            unscanned += [subject] if subject.folder not in damage else []
            continue
        asr = percent(subject.asr)
        models += [_model_line(subject, asr, finding) for finding in model.scanners]
        inputs += [_input_line(subject, asr, finding) for finding in model.inputs]
        if model.round != subject.round:
            notes.append(
                f"{', '.join(subject.labels)}: the findings are those of round {model.round}, the "
                f"run is at round {subject.round}. Scan it again: {audit_command(subject.folder)}"
            )
    unjudged = [ONLY_INPUTS] if inputs and not models else []
    return Section(
        headings=headings,
        models=tuple(models),
        inputs=tuple(inputs),
        notes=(*dict.fromkeys(_settings(f) for f in findings.values()), *unjudged, *notes),
        missing=_missing(unscanned, subjects),
        command=audit_command(unscanned[0].folder) if unscanned else "",
        damage=tuple(damage.values()),
    )


def _read(folders: Sequence[Path]) -> tuple[dict[Path, FinalModels], dict[Path, str]]:
    findings, damage = {}, {}
    for folder in folders:
        try:
            found = read_final_models(folder)
        except StateError as error:
            damage[folder] = str(error)
            continue
        if found is not None:
            findings[folder] = found
    return findings, damage


def _model_of(found: FinalModels, arm: str) -> FinalModel | None:
    return next((model for model in found.models if model.name == arm), None)


def _model_line(subject: Subject, asr: str, finding: ModelFinding) -> Line:
    threshold = f"{finding.threshold:+.2f}" + ("" if finding.calibrated else ", as published")
    verdict = "suspected" if finding.suspected else "passed"
    cells = (asr, f"{finding.score:+.2f}", threshold, verdict)
    return Line((*subject.labels, finding.scanner), cells, finding.suspected)


def _input_line(subject: Subject, asr: str, finding: InputFinding) -> Line:
    triggered = f" of {finding.triggered}" if finding.triggered else ""
    cells = (
        asr,
        f"{finding.threshold:+.2f}",
        percent(finding.found) + triggered,
        f"{percent(finding.false_alarms)} of {finding.clean}",
        "–" if finding.auroc is None else f"{finding.auroc:.3f}",
    )
    return Line((*subject.labels, finding.scanner), cells)


def _settings(found: FinalModels) -> str:
    shadows = f", {found.shadows} clean shadow models" if found.shadows else ""
    return (
        f"The server judged with {found.clean_samples} clean samples{shadows}; thresholds aim at "
        f"{percent(found.false_alarms)} false alarms where they are not published ones."
    )


def _missing(unscanned: Sequence[Subject], subjects: Sequence[Subject]) -> str:
    if not unscanned:
        return ""
    runs = {subject.folder for subject in unscanned}
    all_runs = {subject.folder for subject in subjects}
    if len(all_runs) > 1:
        return f"The final models of {len(runs)} of {len(all_runs)} runs have not been scanned."
    if len(unscanned) == len(subjects):
        return "Nobody has looked for a backdoor in the final models of this run."
    names = "; ".join(", ".join(subject.labels) for subject in unscanned)
    return f"Not scanned: {names}."
