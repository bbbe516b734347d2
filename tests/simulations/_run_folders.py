"""Synthetic run folders in the layout that simulations write: made-up numbers, no run behind them.

The curves are drawn so that every part of a plot or a report has something to show: an attack
that takes hold, a defence that needs a few rounds, attackers that are not always caught, benign
clients that are sometimes held back, and malformed replies.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

NUM_CLIENTS = 20
MALICIOUS = (3, 8, 12, 17)
NUM_ROUNDS = 15
ODD_CLIENT = 5  # benign, but unlike the others: sometimes held back
REASONS = ("class_shift@4/clean", "row_motion", "update_norm", "spread@10/noise", "drift@1/jumbo")


@dataclass(frozen=True)
class SyntheticRun:
    """What a synthetic run folder shall hold; `write` puts it there.

    Attributes:
        arms: Names of the arms, in the order in which they ran.
        rounds: Rounds that each arm has written, by name; default all of `num_rounds`.
        finished: Whether the run ended, so that `summary.json` says so.
    """

    arms: tuple[str, ...] = ("clean", "undefended", "defended")
    num_rounds: int = NUM_ROUNDS
    num_clients: int = NUM_CLIENTS
    malicious: tuple[int, ...] = MALICIOUS
    rounds: dict[str, int] = field(default_factory=dict)
    finished: bool = True
    seed: int = 7

    def node_id(self, partition: int) -> str:
        """Return the 64-bit Flower node id of a client, as text."""
        return str((partition + 1) * 861_433_201_557_923_641 % 2**64)

    def write(self, folder: Path) -> Path:
        """Write the run into `folder` and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "seed": self.seed,
            "num_clients": self.num_clients,
            "num_rounds": self.num_rounds,
            "data": {"name": "synthetic"},
            "attack": {"trigger": "patch", "target_class": 0, "poison_share": 0.5},
            "defence": {"policy": "drop", "threshold": 2.0},
        }
        (folder / "config.yaml").write_text(_yaml(config), encoding="utf-8")
        runs = {}
        for index, arm in enumerate(self.arms):
            generator = np.random.default_rng([self.seed, index])
            runs[arm] = self._write_arm(folder / "arms" / arm, arm, generator)
        summary = {
            "seed": self.seed,
            "config": config,
            "versions": {"python": "3.11.9", "flwr": "1.41.0", "torch": "2.15.0"},
            "runs": runs if self.finished else {},
            "finished": self.finished,
        }
        (folder / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
        return folder

    def _write_arm(self, folder: Path, arm: str, generator: np.random.Generator) -> dict[str, Any]:
        folder.mkdir(parents=True)
        attacked, judged = not arm.startswith("clean"), arm.endswith("defended")
        judged &= arm != "undefended"
        last = self.rounds.get(arm, self.num_rounds)
        rounds: list[dict[str, Any]] = []
        verdicts: list[dict[str, Any]] = []
        evidence = np.zeros(self.num_clients)
        for number in range(last + 1):
            learnt = 1 - math.exp(-number / 3.5)
            accuracy = 0.1 + 0.862 * learnt + generator.normal(0, 0.002)
            asr = 0.004 + abs(generator.normal(0, 0.004))
            if arm == "undefended":
                asr += 0.98 / (1 + math.exp(-(number - 5) / 1.2))
            elif attacked:
                asr += 0.12 * math.exp(-((number - 3) ** 2) / 4)
            line: dict[str, Any] = {
                "round": number,
                "main_accuracy": round(min(accuracy, 0.99), 4),
                "asr": round(min(asr, 1.0), 4),
                "loss": None if number == 0 else round(2.3 * (1 - learnt) + 0.08, 4),
                "seconds": None if number == 0 else round(2.1 + generator.gamma(2, 0.12), 4),
                **dict.fromkeys(("shield_seconds", "tpr", "fpr", "dropped", "rejected")),
            }
            if judged and number > 0:
                lines = self._judge(number, attacked, evidence, generator)
                verdicts += lines
                line |= self._rates(lines, attacked)
                line["shield_seconds"] = round(0.16 + generator.gamma(2, 0.02), 4)
                line["seconds"] = round(line["seconds"] + line["shield_seconds"], 4)
            rounds.append(line)
        _write_lines(folder / "rounds.jsonl", rounds)
        if judged:
            _write_lines(folder / "audit.jsonl", verdicts)
        truth = {
            self.node_id(c): {"partition_id": c, "malicious": attacked and c in self.malicious}
            for c in range(self.num_clients)
        }
        (folder / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
        return _summarise(rounds)

    def _judge(
        self, number: int, attacked: bool, evidence: Any, generator: np.random.Generator
    ) -> list[dict[str, Any]]:
        lines = []
        for client in range(self.num_clients):
            malicious = attacked and client in self.malicious
            if generator.random() < 0.12:  # not sampled this round
                continue
            usual = 4.2 if malicious else 0.8 if client == ODD_CLIENT else -3.1
            line: dict[str, Any] = {
                "round": number,
                "node_id": self.node_id(client),
                "decision": "keep",
                "score": round(float(generator.normal(usual, 1.6)), 4),
                "evidence": None,
                "weight": 1.0,
                "reasons": [],
                "detail": "",
            }
            if generator.random() < 0.01:
                line |= {"decision": "reject", "score": None, "weight": 0.0}
                line["detail"] = "An array holds NaN."
                lines.append(line)
                continue
            evidence[client] = 0.7 * evidence[client] + line["score"]
            line["evidence"] = round(float(evidence[client]), 4)
            if evidence[client] > 4.0:
                line |= {"decision": "drop", "weight": 0.0}
            elif evidence[client] > 2.0:
                line |= {"decision": "downweight", "weight": 0.5}
            names = generator.permutation(REASONS)[:3]
            strength = 7.0 if malicious else 1.2
            line["reasons"] = [
                {"name": str(name), "value": round(float(generator.gamma(3, strength / 3)), 4)}
                for name in names
            ]
            lines.append(line)
        return lines

    def _rates(self, lines: list[dict[str, Any]], attacked: bool) -> dict[str, Any]:
        bad = {self.node_id(c) for c in self.malicious} if attacked else set()
        flagged = [line["decision"] in ("drop", "downweight") for line in lines]
        of_bad = [f for f, line in zip(flagged, lines, strict=True) if line["node_id"] in bad]
        of_good = [f for f, line in zip(flagged, lines, strict=True) if line["node_id"] not in bad]
        return {
            "tpr": round(sum(of_bad) / len(of_bad), 4) if of_bad else None,
            "fpr": round(sum(of_good) / len(of_good), 4) if of_good else None,
            "dropped": sum(line["decision"] == "drop" for line in lines),
            "rejected": sum(line["decision"] == "reject" for line in lines),
        }


def _summarise(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    def mean(name: str) -> float | None:
        values = [line[name] for line in rounds if line[name] is not None]
        return round(sum(values) / len(values), 4) if values else None

    seconds, shield = mean("seconds"), mean("shield_seconds")
    return {
        "main_accuracy": rounds[-1]["main_accuracy"],
        "asr": rounds[-1]["asr"],
        "tpr": mean("tpr"),
        "fpr": mean("fpr"),
        "shield_share": round(shield / seconds, 4) if seconds and shield else None,
        "seconds_per_round": seconds,
        "rounds": len(rounds) - 1,
    }


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _yaml(value: dict[str, Any], indent: str = "") -> str:
    text = ""
    for name, entry in value.items():
        if isinstance(entry, dict):
            text += f"{indent}{name}:\n{_yaml(entry, indent + '  ')}"
        else:
            text += f"{indent}{name}: {entry}\n"
    return text
