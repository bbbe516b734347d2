"""What scanners found in the final models of a run: `audit.json` in the run folder, one schema.

`fl-shield audit RUN` writes it, and the reports read it back. Whatever does not have this form is
refused in one sentence: a report says so instead of showing half of it.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fl_shield.atomic import draft_of
from fl_shield.errors import StateError

FOUND = "audit.json"
"""Name of the file in the run folder."""

FORMAT, VERSION = "fl_shield.final_models", 1


@dataclass(frozen=True)
class ModelFinding:
    """What one scanner says of a whole model.

    Attributes:
        scanner: Name of the scanner, or `"ensemble"`.
        score: Higher is more suspicious; the unit is the scanner's own.
        threshold: Score above which a model is suspected.
        calibrated: Whether the threshold was found on shadow models; otherwise it is as published.
        suspected: Whether the score is above it.
    """

    scanner: str
    score: float
    threshold: float
    calibrated: bool
    suspected: bool


@dataclass(frozen=True)
class InputFinding:
    """How one scanner tells triggered inputs of a model from clean ones; shares lie in [0, 1].

    Attributes:
        scanner: Name of the scanner.
        threshold: Score above which an input is suspected.
        clean: Number of clean test inputs.
        triggered: Number of triggered test inputs; 0 if the attack has no trigger.
        false_alarms: Suspected share of the clean ones.
        found: Suspected share of the triggered ones, None without any.
        auroc: Area under the ROC curve, None without triggered ones.
    """

    scanner: str
    threshold: float
    clean: int
    triggered: int
    false_alarms: float
    found: float | None
    auroc: float | None


@dataclass(frozen=True)
class FinalModel:
    """The findings on the model of one arm.

    Attributes:
        name: Name of the arm.
        round: The round that the model is from.
        suspected: The verdict on the whole model, None if only its inputs were judged.
        scanners: What scanners of whole models say.
        inputs: What scanners of inputs find.
    """

    name: str
    round: int
    suspected: bool | None
    scanners: tuple[ModelFinding, ...] = ()
    inputs: tuple[InputFinding, ...] = ()


@dataclass(frozen=True)
class FinalModels:
    """The findings on a run, as they are in `audit.json`.

    Attributes:
        clean_samples: Clean samples that the server held.
        shadows: Clean shadow models behind the thresholds; 0 for published ones.
        false_alarms: Share of clean models, and of clean inputs, that may be suspected.
        seed: Seed of shadows and searches.
        models: The models, in the order of the arms.
    """

    clean_samples: int
    shadows: int
    false_alarms: float
    seed: int
    models: tuple[FinalModel, ...]

    @property
    def suspects(self) -> list[str]:
        """Names of the suspected models."""
        return [model.name for model in self.models if model.suspected]

    def record(self) -> dict[str, Any]:
        """Return the findings, JSON-ready."""
        return {"format": FORMAT, "version": VERSION, "suspects": self.suspects, **asdict(self)}

    def write(self, folder: Path) -> Path:
        """Write `audit.json` into a run folder, whole or not at all, and return its path.

        Raises:
            StateError: if the folder cannot be written to.
        """
        file = folder / FOUND
        text = json.dumps(self.record(), indent=1, allow_nan=False)
        try:
            with draft_of(file) as draft:
                draft.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise StateError(
                f"The findings cannot be written to {file} ({error.strerror}). Make room or give "
                "write permission, and audit again."
            ) from error
        return file


def audit_command(folder: Path) -> str:
    """Return the command that scans the final models of a run."""
    return f"fl-shield audit {shlex.quote(str(folder))}"


def read_final_models(folder: Path) -> FinalModels | None:
    """Return the findings in a run folder, None if there are none.

    Raises:
        StateError: if the file is damaged or of another version, with the command that renews it.
    """
    file = folder / FOUND
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(record, Mapping):
            raise TypeError("no mapping")
        found = (record.get("format"), record.get("version"))
        if found == (FORMAT, VERSION):
            return _findings(record)
    except FileNotFoundError:
        return None
    # RecursionError: brackets in brackets without end; OverflowError: a number of 400 digits.
    except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise StateError(
            f"{file} is damaged or cut short, and left out. Write it again: {audit_command(folder)}"
        ) from error
    raise StateError(
        f"Expected {file} to have format {FORMAT} and version {VERSION}, got {found[0]!r} and "
        f"{found[1]!r}; it is left out. Write it again: {audit_command(folder)}"
    )


def _findings(record: Mapping[str, Any]) -> FinalModels:
    return FinalModels(
        clean_samples=_whole(record["clean_samples"]),
        shadows=_whole(record["shadows"]),
        false_alarms=_finite(record["false_alarms"]),
        seed=_whole(record["seed"]),
        models=tuple(
            FinalModel(
                name=_text(model["name"]),
                round=_whole(model["round"]),
                suspected=None if model["suspected"] is None else _truth(model["suspected"]),
                scanners=tuple(map(_of_model, model["scanners"])),
                inputs=tuple(map(_of_inputs, model["inputs"])),
            )
            for model in record["models"]
        ),
    )


def _of_model(record: Mapping[str, Any]) -> ModelFinding:
    return ModelFinding(
        scanner=_text(record["scanner"]),
        score=_finite(record["score"]),
        threshold=_finite(record["threshold"]),
        calibrated=_truth(record["calibrated"]),
        suspected=_truth(record["suspected"]),
    )


def _of_inputs(record: Mapping[str, Any]) -> InputFinding:
    found, auroc = record["found"], record["auroc"]
    return InputFinding(
        scanner=_text(record["scanner"]),
        threshold=_finite(record["threshold"]),
        clean=_whole(record["clean"]),
        triggered=_whole(record["triggered"]),
        false_alarms=_finite(record["false_alarms"]),
        found=None if found is None else _finite(found),
        auroc=None if auroc is None else _finite(auroc),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(value)
    return float(value)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(value)
    return value
