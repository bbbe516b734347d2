"""Run folders as rows: one for each arm, with what it is to be held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from fl_shield.metrics.detection import auroc
from fl_shield.simulations.arms import ARMS
from fl_shield.simulations.reporting.naming import cell_words, defence_name, option_of
from fl_shield.simulations.reporting.setup import setup_of
from fl_shield.simulations.run_folder import Arm, RunFolder, read_run_folder
from fl_shield.simulations.seen import seen_parts
from fl_shield.simulations.study_cells import NO_ATTACK, NO_DEFENCE, configuration_of
from fl_shield.simulations.study_job import read_reference
from fl_shield.simulations.summary import arm_figures


@dataclass(frozen=True)
class Row:
    """One arm of a run. Shares lie in [0, 1]; None means "not measured".

    Attributes:
        run: The run folder's name.
        data: Data set.
        model: Architecture.
        attack: How the backdoor is planted, `"clean"` where nobody attacks.
        trigger: What is planted, empty where nobody attacks.
        attackers: Share of the clients that attacks.
        defence: Defence or robust strategy, `"none"` without one.
        seed: Seed of the run.
        rounds: Finished rounds.
        finished: Whether the run came to its end.
        final_asr: Attack success rate of the last model.
        max_asr: Highest attack success rate after any round.
        final_ma: Main accuracy of the last model.
        clean_asr: What the last model of the run without attack and defence gives for this trigger.
        clean_ma: Main accuracy of that model.
        tpr: Share of malicious updates that were flagged, over the whole run.
        fpr: Share of benign updates that were flagged.
        auroc: Area under the ROC curve of the scores of single updates.
        seconds_per_round: Mean wall-clock time of a round.
        seen: `"yes"` or `"no"`: whether the detector was trained on the data set; empty for
            defences that learn nothing beforehand.
        seen_parts: What of data set, model and trigger its training met.
        setup: Digest of the settings that decide what the run comes to; empty if not known.
        late_asr: Mean attack success rate over the last third of the rounds.
        late_ma: Mean main accuracy over the last third of the rounds.
    """

    run: str
    data: str
    model: str
    attack: str
    trigger: str
    attackers: float
    defence: str
    seed: int | None
    rounds: int
    finished: bool
    final_asr: float | None
    max_asr: float | None
    final_ma: float | None
    clean_asr: float | None
    clean_ma: float | None
    tpr: float | None
    fpr: float | None
    auroc: float | None
    seconds_per_round: float | None
    seen: str
    seen_parts: str
    setup: str = ""
    late_asr: float | None = None
    late_ma: float | None = None

    @property
    def attack_name(self) -> str:
        """The attack with its trigger, as studies name it."""
        return f"{self.attack}-{self.trigger}" if self.trigger else self.attack

    @property
    def cell(self) -> tuple[str, str, str, float, str]:
        """What rows have in common that differ in their seeds only."""
        return (self.data, self.attack, self.trigger, self.attackers, self.defence)


@dataclass(frozen=True)
class RunRow:
    """A row and the records that it sums up."""

    row: Row
    folder: Path
    arm: Arm


def read_rows(folders: Sequence[str | Path]) -> tuple[list[RunRow], list[str]]:
    """Return a row for each arm of each run, and a sentence for each thing that cannot be read.

    Raises:
        DataError: naming the first folder that is no run folder.
    """
    rows: list[RunRow] = []
    damage: list[str] = []
    for folder in folders:
        run = read_run_folder(folder)
        damage += [f"{run.path}: {sentence}" for sentence in run.damage]
        config = _config(run, damage)
        rows += [_row(run, arm, config) for arm in run.arms if arm.rounds]
        if not any(arm.rounds for arm in run.arms):
            damage.append(f"{run.path}: no round was recorded.")
    return [_with_reference(row, rows) for row in rows], damage


def _config(run: RunFolder, damage: list[str]) -> Mapping[str, Any]:
    try:
        config = yaml.safe_load(run.config_text)
    except yaml.YAMLError:
        config = None
    if not isinstance(config, Mapping):
        damage.append(f"{run.path}: config.yaml is damaged or missing; its names are unknown.")
        return {}
    return config


def _row(run: RunFolder, arm: Arm, config: Mapping[str, Any]) -> RunRow:
    kind = ARMS.get(arm.name)
    attacked = kind is None or kind.attacked
    defended = kind is None or kind.defended
    words = cell_words(run.path)
    figures = arm_figures(arm)
    names = {
        "data": str(words.get("data") or option_of("data", config.get("data"))),
        "model": option_of("model", config.get("model")),
        "trigger": "",
    }
    if attacked:
        trigger = words.get("trigger") or option_of("trigger", _trigger(config))
        names["trigger"] = str(trigger)
    defence = str(words.get("defence") or defence_name(config)) if defended else NO_DEFENCE
    attack = str(words.get("attack") or option_of("attack", config.get("attack")))
    met = seen_parts(config.get("defence") or {}, names) if defended else None
    seed = config.get("seed", run.seed)
    row = Row(
        run=run.path.resolve().name,
        data=names["data"],
        model=names["model"],
        attack=attack if attacked else NO_ATTACK,
        trigger=names["trigger"],
        attackers=_share(config) if attacked else 0.0,
        defence=defence,
        seed=seed if isinstance(seed, int) else None,
        rounds=figures["rounds"],
        finished=run.finished,
        final_asr=figures["asr"],
        max_asr=figures["highest_asr"],
        final_ma=figures["main_accuracy"],
        clean_asr=None,
        clean_ma=None,
        tpr=figures["tpr"],
        fpr=figures["fpr"],
        auroc=_auroc(arm),
        seconds_per_round=figures["seconds_per_round"],
        seen="" if met is None else "yes" if "data" in met else "no",
        seen_parts="" if met is None else " ".join(met),
        setup=setup_of(config, run.summary.get("detector")) if config else "",
        late_asr=figures["late_asr"],
        late_ma=figures["late_main_accuracy"],
    )
    return RunRow(row, run.path, arm)


def _trigger(config: Mapping[str, Any]) -> object:
    attack = config.get("attack")
    trigger = attack.get("trigger") if isinstance(attack, Mapping) else None
    return config.get("trigger") if trigger is None else trigger


def _share(config: Mapping[str, Any]) -> float:
    """Return the share of attackers; a whole number counts clients, as in the settings."""
    value, clients = config.get("attackers"), config.get("num_clients")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return float("nan")
    if isinstance(value, int) and isinstance(clients, int) and clients:
        return round(value / clients, 4)
    return float(value)


def _auroc(arm: Arm) -> float | None:
    known = [
        (verdict.score, truth)
        for verdict in arm.verdicts
        if verdict.score is not None and (truth := arm.is_malicious(verdict.node_id)) is not None
    ]
    return auroc([score for score, _ in known], [truth for _, truth in known])


def _with_reference(entry: RunRow, rows: Sequence[RunRow]) -> RunRow:
    """Return a row with the figures of the run without attack and defence of its data and seed."""
    row = entry.row
    clean = [
        other
        for other in rows
        if other.row.attack == NO_ATTACK
        and other.row.defence == NO_DEFENCE
        and (other.row.data, other.row.model, other.row.seed) == (row.data, row.model, row.seed)
    ]
    if not clean:
        return entry
    own = next((other for other in clean if other.folder == entry.folder), None)
    best = own or clean[0]
    shown = configuration_of(row.attack_name, cell_words(entry.folder).get("settings") or [])
    rate = best.row.final_asr if own else read_reference(best.folder).get(shown)
    return replace(entry, row=replace(row, clean_asr=rate, clean_ma=best.row.final_ma))
