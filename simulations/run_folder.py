"""A run folder, read back as typed values: what plots, report and audits see of a run.

The reader is made for runs that were interrupted: whatever was written can be read, a line that
was not is skipped and named in `RunFolder.damage`, and when a round was run again after a resume
its last record counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fl_shield.errors import DataError
from fl_shield.judge.verdict import HELD_BACK, Decision, Reason

KNOWN_ARMS = ("clean", "undefended", "defended", "clean_defended")
# One broken disk block can spoil every line of a log; past this the messages say nothing new.
MAX_DAMAGE_MESSAGES = 50
# What reading a line of the wrong form can raise (OverflowError: a number of 400 digits).
DAMAGED = (KeyError, TypeError, ValueError, OverflowError, RecursionError, AttributeError)

Record = TypeVar("Record")


@dataclass(frozen=True)
class Round:
    """One line of `rounds.jsonl`; round 0 is the initial model, and None means "not measured".

    Attributes:
        number: Round, counted from 1 (0: before training).
        main_accuracy: Share of clean test samples classified correctly, in [0, 1].
        asr: Attack success rate, in [0, 1].
        loss: Mean training loss of the clients that replied.
        seconds: Wall-clock time of the round, the shield's part included.
        shield_seconds: Wall-clock time that the shield took.
        tpr: Share of arrived malicious replies that were flagged, in [0, 1].
        fpr: Share of arrived benign replies that were flagged, in [0, 1].
        dropped: Number of replies that were dropped.
        rejected: Number of malformed replies.
    """

    number: int
    main_accuracy: float | None = None
    asr: float | None = None
    loss: float | None = None
    seconds: float | None = None
    shield_seconds: float | None = None
    tpr: float | None = None
    fpr: float | None = None
    dropped: int | None = None
    rejected: int | None = None


@dataclass(frozen=True)
class LoggedVerdict:
    """One line of `audit.jsonl`. Strings come from outside and are not to be trusted."""

    round_number: int
    node_id: str
    decision: Decision
    score: float | None
    evidence: float | None
    weight: float | None
    reasons: tuple[Reason, ...] = ()
    detail: str = ""

    @property
    def flagged(self) -> bool:
        """Whether the reply was held back, wholly or by half and more, as a suspect."""
        is_judged = self.decision in (Decision.DROP, Decision.DOWNWEIGHT)
        return is_judged and (self.weight is None or self.weight <= HELD_BACK)


@dataclass(frozen=True)
class ClientTruth:
    """What the simulation knows of a client and the shield does not."""

    partition_id: int
    malicious: bool


@dataclass(frozen=True)
class Arm:
    """One of the runs that are compared: the same seed with or without attack and defence."""

    name: str
    rounds: tuple[Round, ...] = ()
    verdicts: tuple[LoggedVerdict, ...] = ()
    truth: Mapping[str, ClientTruth] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The arm's name as a person writes it."""
        return self.name.replace("_", " ")

    def is_malicious(self, node_id: str) -> bool | None:
        """Return whether a client attacks; None if the run does not know."""
        known = self.truth.get(node_id)
        return None if known is None else known.malicious


@dataclass(frozen=True)
class RunFolder:
    """Everything that was recorded of a run.

    Attributes:
        path: The folder.
        config_text: Text of `config.yaml`; empty if there is none.
        summary: `summary.json`; empty if the run did not get that far.
        arms: Arms found, known ones first.
        damage: One sentence for each thing that could not be read.
    """

    path: Path
    config_text: str
    summary: Mapping[str, Any]
    arms: tuple[Arm, ...]
    damage: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.summary.get("finished") is True

    @property
    def seed(self) -> int | None:
        """The seed of the run, if recorded."""
        seed = self.summary.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def judged_arm(self) -> Arm | None:
        """The arm whose verdicts are shown: `defended`, else the first one with verdicts."""
        judged = [arm for arm in self.arms if arm.verdicts]
        return next(
            (arm for arm in judged if arm.name == "defended"), judged[0] if judged else None
        )

    def arm(self, name: str) -> Arm | None:
        """Return the arm called `name`, or None."""
        return next((arm for arm in self.arms if arm.name == name), None)


def read_run_folder(path: str | Path) -> RunFolder:
    """Return what a run folder holds, finished or not.

    Args:
        path: The folder that a simulation wrote.

    Returns:
        The run; damaged lines and files are left out and named in `damage`.

    Raises:
        DataError: if `path` is no folder, or not that of a run.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"Expected a run folder at '{folder}', found no such folder.")
    if not (folder / "arms").is_dir():
        raise DataError(
            f"Expected '{folder}' to be a run folder, but it holds no `arms` folder. "
            "Name the folder that `fl-shield simulate` printed at its end."
        )
    damage: list[str] = []
    names = [entry.name for entry in (folder / "arms").iterdir() if entry.is_dir()]
    names.sort(key=lambda n: (KNOWN_ARMS.index(n) if n in KNOWN_ARMS else len(KNOWN_ARMS), n))
    arms = tuple(_read_arm(folder, name, damage) for name in names)
    if len(damage) > MAX_DAMAGE_MESSAGES:
        left_out = len(damage) - MAX_DAMAGE_MESSAGES
        damage = [*damage[:MAX_DAMAGE_MESSAGES], f"and {left_out} more damaged lines."]
    return RunFolder(
        path=folder,
        config_text=_read_text(folder, "config.yaml", damage),
        summary=_read_object(folder, "summary.json", damage),
        arms=arms,
        damage=tuple(damage),
    )


def _read_arm(folder: Path, name: str, damage: list[str]) -> Arm:
    rounds: dict[int, Round] = {}
    for entry in _read_lines(folder, f"arms/{name}/rounds.jsonl", _parse_round, damage):
        rounds[entry.number] = entry
    verdicts: dict[tuple[int, str], LoggedVerdict] = {}
    for line in _read_lines(folder, f"arms/{name}/audit.jsonl", _parse_verdict, damage):
        verdicts[line.round_number, line.node_id] = line
    truth: dict[str, ClientTruth] = {}
    where = f"arms/{name}/truth.json"
    for node_id, known in _read_object(folder, where, damage).items():
        try:
            truth[node_id] = ClientTruth(int(known["partition_id"]), _boolean(known["malicious"]))
        except DAMAGED:
            damage.append(f"{where}: the entry of client {node_id[:40]!r} is damaged, left out.")
    return Arm(
        name=name,
        rounds=tuple(rounds[number] for number in sorted(rounds)),
        verdicts=tuple(sorted(verdicts.values(), key=lambda v: v.round_number)),
        truth=truth,
    )


def _parse_round(line: Mapping[str, Any]) -> Round:
    return Round(
        number=_required_integer(line["round"]),
        main_accuracy=_number(line.get("main_accuracy")),
        asr=_number(line.get("asr")),
        loss=_number(line.get("loss")),
        seconds=_number(line.get("seconds")),
        shield_seconds=_number(line.get("shield_seconds")),
        tpr=_number(line.get("tpr")),
        fpr=_number(line.get("fpr")),
        dropped=_integer(line.get("dropped")),
        rejected=_integer(line.get("rejected")),
    )


def _parse_verdict(line: Mapping[str, Any]) -> LoggedVerdict:
    reasons = []
    for reason in line.get("reasons") or ():
        value = _number(reason["value"])
        if value is not None:
            reasons.append(Reason(str(reason["name"]), value))
    return LoggedVerdict(
        round_number=_required_integer(line["round"]),
        node_id=str(line["node_id"]),
        decision=Decision(line["decision"]),
        score=_number(line.get("score")),
        evidence=_number(line.get("evidence")),
        weight=_number(line.get("weight")),
        reasons=tuple(reasons),
        detail=str(line.get("detail") or ""),
    )


def _read_lines(
    folder: Path, where: str, parse: Callable[[Mapping[str, Any]], Record], damage: list[str]
) -> Iterator[Record]:
    path = folder / where
    if not path.is_file():
        return
    # Undecodable bytes become replacement characters: the line then fails alone, not the file.
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, text in enumerate(lines, start=1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
                if not isinstance(line, dict):
                    raise TypeError
                record = parse(line)
            except DAMAGED:
                damage.append(f"{where}, line {number}: damaged or cut short, left out.")
                continue
            yield record


def _read_object(folder: Path, where: str, damage: list[str]) -> dict[str, Any]:
    text = _read_text(folder, where, damage)
    if not text:
        return {}
    try:
        value = json.loads(text)
        if not isinstance(value, dict):
            raise TypeError
    except DAMAGED:
        damage.append(f"{where}: damaged or cut short, left out.")
        return {}
    return value


def _read_text(folder: Path, where: str, damage: list[str]) -> str:
    try:
        return (folder / where).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        damage.append(f"{where}: cannot be read ({error.strerror}), left out.")
        return ""


def _number(value: object) -> float | None:
    """Return a finite float, or None for null and NaN; anything else makes the line damaged."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    number = float(value)
    return number if math.isfinite(number) else None


def _integer(value: object) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _required_integer(value: object) -> int:
    number = _integer(value)
    if number is None:
        raise TypeError
    return number


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value
