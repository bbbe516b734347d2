"""One arm, round by round: train, aggregate, evaluate, record, checkpoint.

Drives a Flower strategy through its public contract (`configure_train`, `aggregate_train`) as
`Strategy.start` does, with three things that `start` has no place for: going on from a checkpoint
at any round, sampling that follows the seed, and a record of every round on disk.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fl_shield.atomic import draft_of
from fl_shield.errors import FlShieldError, StateError
from fl_shield.judge.verdict import Decision, Verdict
from fl_shield.metrics.backdoor import accuracy, attack_success_rate
from fl_shield.metrics.detection import detection_rates
from fl_shield.simulations.arms import Arm
from fl_shield.simulations.federation import Federation, build, derived_seed
from fl_shield.simulations.nodes import NodeMap
from fl_shield.simulations.progress import Display
from fl_shield.strategies.checkpoint import read_checkpoint, restore, write_checkpoint
from fl_shield.tracking import Tracker

UNTRAINED: dict[str, None] = dict.fromkeys(
    ("loss", "seconds", "tpr", "fpr", "dropped", "rejected", "shield_seconds")
)
"""What the initial model has no figures for."""


@dataclass(frozen=True)
class Stage:
    """What an arm plays on: the federation, its nodes, and who watches.

    Attributes:
        federation: The federation.
        grid: Flower's grid, ordered by client number.
        nodes: Ground truth of which node is which client.
        folder: The run folder.
        tracker: Experiment tracker.
        display: Progress display.
    """

    federation: Federation
    grid: Grid
    nodes: NodeMap
    folder: Path
    tracker: Tracker
    display: Display


def build_strategy(federation: Federation, arm: Arm, audit_log: Path | None = None) -> Strategy:
    """Return the strategy of an arm, shielded if the arm is defended.

    Raises:
        ConfigurationError: if strategy or defence refuse their settings.
    """
    config = federation.settings.config
    strategy: Strategy = build(config["strategy"], "strategy")
    if not arm.defended:
        return strategy
    defence = build(config["defence"], "defence")
    shielded: Strategy = defence(
        strategy, federation.new_model(), federation.probe_set(), audit_log=audit_log
    )
    return shielded


def run_arm(stage: Stage, arm: Arm) -> None:
    """Run an arm to its end, from its last checkpoint if it has one."""
    settings = stage.federation.settings
    folder = stage.folder / "arms" / arm.name
    folder.mkdir(parents=True, exist_ok=True)
    renamed = _write_truth(stage, arm, folder)
    strategy = build_strategy(stage.federation, arm, folder / "audit.jsonl")
    checkpoint = read_checkpoint(folder / "checkpoint")
    done = 0 if checkpoint is None else checkpoint.round_number
    _cut_after(folder / "rounds.jsonl", done, renamed)
    _cut_after(folder / "audit.jsonl", done, renamed)
    if done >= settings.rounds:
        return
    stage.tracker.start_arm(arm.name)
    stage.display.start_arm(arm.title, settings.rounds, done)
    if checkpoint is None:
        arrays = ArrayRecord(stage.federation.initial_model().state_dict())
        (folder / "rounds.jsonl").unlink(missing_ok=True)
        _append(
            folder / "rounds.jsonl",
            {"round": 0, **UNTRAINED, **_evaluate(stage.federation, arrays, arrays, 0)},
        )
    else:
        arrays = checkpoint.arrays
        restore(strategy, replace(checkpoint, shield=_rename(checkpoint.shield, renamed)))
    figures: dict[str, float | None] = {}
    for round_number in range(done + 1, settings.rounds + 1):
        arrays, figures = _run_round(stage, arm, strategy, arrays, round_number)
        _append(folder / "rounds.jsonl", {"round": round_number, **figures})
        write_checkpoint(folder / "checkpoint", round_number, arrays, strategy)
        stage.tracker.log_round(round_number, figures)
        stage.tracker.log_scores(round_number, _scores(stage, arm, strategy))
        stage.display.show_round(round_number, figures)
    stage.tracker.finish_arm(figures)


def _run_round(
    stage: Stage, arm: Arm, strategy: Strategy, arrays: ArrayRecord, round_number: int
) -> tuple[ArrayRecord, dict[str, float | None]]:
    # Flower's strategies sample clients, and draw privacy noise, with the global generators.
    seed = derived_seed(stage.federation.settings.seed, 7, round_number)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    started = time.perf_counter()
    config = ConfigRecord({"server-round": round_number, "arm": arm.name})
    messages = list(strategy.configure_train(round_number, arrays, config, stage.grid))
    replies = list(stage.grid.send_and_receive(messages))
    failed = [reply for reply in replies if reply.has_error()]
    if replies and len(failed) == len(replies):
        reason = str(failed[0].error.reason).strip().splitlines()
        raise FlShieldError(
            f"Every client failed in round {round_number}; the first says: "
            f"{reason[-1] if reason else 'nothing'}"
        )
    aggregated, metrics = strategy.aggregate_train(round_number, replies)
    seconds = time.perf_counter() - started
    sent, arrays = arrays, arrays if aggregated is None else _as_sent(aggregated, arrays)
    figures = _evaluate(stage.federation, arrays, sent, round_number)
    figures["loss"] = _metric(metrics, "train-loss")
    figures["seconds"] = seconds
    figures |= _detection(stage, arm, getattr(strategy, "last_verdicts", None))
    figures["shield_seconds"] = getattr(strategy, "last_seconds", None)
    return arrays, figures


def _as_sent(aggregated: ArrayRecord, sent: ArrayRecord) -> ArrayRecord:
    """Return the aggregate in the dtypes of the arrays that were sent out.

    Strategies turn counters, and server optimisers every array, into double precision; left so,
    the payload doubles for all rounds to come.
    """
    if all(aggregated[name].dtype == sent[name].dtype for name in aggregated):
        return aggregated
    return ArrayRecord(
        {name: Array(a.numpy().astype(sent[name].numpy().dtype)) for name, a in aggregated.items()}
    )


def _evaluate(
    federation: Federation, arrays: ArrayRecord, sent: ArrayRecord, round_number: int
) -> dict[str, float | None]:
    model = federation.new_model()
    model.load_state_dict(sent.to_torch_state_dict())
    attack = federation.attack_against(model, round_number)
    model.load_state_dict(arrays.to_torch_state_dict())
    test = federation.task.test
    return {
        "main_accuracy": accuracy(model, test),
        "asr": attack_success_rate(model, test, attack),
    }


def _detection(stage: Stage, arm: Arm, verdicts: list[Verdict] | None) -> dict[str, float | None]:
    if verdicts is None:
        return {"tpr": None, "fpr": None, "dropped": None, "rejected": None}
    judged = [verdict for verdict in verdicts if verdict.decision is not Decision.REJECT]
    flagged = [verdict.is_held_back for verdict in judged]
    malicious = [_is_malicious(stage, arm, verdict.client_id) for verdict in judged]
    tpr, fpr = detection_rates(flagged, malicious)
    return {
        "tpr": tpr,
        "fpr": fpr,
        "dropped": sum(verdict.decision is Decision.DROP for verdict in verdicts),
        "rejected": sum(verdict.decision is Decision.REJECT for verdict in verdicts),
    }


def _scores(stage: Stage, arm: Arm, strategy: Strategy) -> Mapping[str, list[float]]:
    scores: dict[str, list[float]] = {"benign": [], "malicious": []}
    for verdict in getattr(strategy, "last_verdicts", None) or []:
        if verdict.score is not None:
            kind = "malicious" if _is_malicious(stage, arm, verdict.client_id) else "benign"
            scores[kind].append(verdict.score)
    return scores


def _is_malicious(stage: Stage, arm: Arm, node_id: int) -> bool:
    return arm.attacked and stage.nodes.clients.get(node_id) in stage.federation.attackers


def _metric(metrics: MetricRecord | None, name: str) -> float | None:
    value = None if metrics is None else metrics.get(name)
    return float(value) if isinstance(value, int | float) else None


def _write_truth(stage: Stage, arm: Arm, folder: Path) -> dict[str, str]:
    """Write which node is which client; return the node ids of earlier sessions, old to new.

    Flower draws new ids for the same clients every time a simulation starts. The ids of all
    sessions are kept in `nodes.json`: a session may end before it writes a checkpoint of its own,
    and the next one then goes on from the ids of the one before.
    """
    node_of = {client: str(node) for node, client in stage.nodes.clients.items()}
    seen = _known_nodes(folder)
    renamed = {node: node_of[client] for node, client in seen.items() if client in node_of}
    _write(folder / "nodes.json", seen | {node: client for client, node in node_of.items()})
    truth = {
        node_of[client]: {
            "partition_id": client,
            "malicious": _is_malicious(stage, arm, int(node_of[client])),
        }
        for client in sorted(node_of)
    }
    _write(folder / "truth.json", truth)
    return renamed


def _known_nodes(folder: Path) -> dict[str, int]:
    try:
        known = json.loads((folder / "nodes.json").read_text(encoding="utf-8"))
        return {str(node): int(client) for node, client in known.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StateError(
            f"{folder / 'nodes.json'} is damaged ({error}); without it the evidence of earlier "
            f"rounds has no owners. Delete {folder} to run this arm from its beginning."
        ) from error


def _write(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file that is either the old one or the new one, whenever the power goes."""
    with draft_of(file) as draft:
        draft.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _rename(state: Any, names: Mapping[str, str]) -> Any:
    """Return JSON-ready values in which every text that is a key of `names` is replaced."""
    if isinstance(state, str):
        return names.get(state, state)
    if isinstance(state, Mapping):
        return {key: _rename(value, names) for key, value in state.items()}
    if isinstance(state, list):
        return [_rename(value, names) for value in state]
    return state


def _append(file: Path, record: Mapping[str, Any]) -> None:
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")


def _cut_after(file: Path, round_number: int, renamed: Mapping[str, str]) -> None:
    """Drop the lines of rounds that no checkpoint remembers (they are run again), rename nodes."""
    if not file.exists():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
            if record["round"] <= round_number:
                kept.append(json.dumps(_rename(record, renamed)))
        except (ValueError, KeyError, TypeError):
            continue  # torn by the interruption
    with draft_of(file) as draft:
        draft.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
