"""The settings of a run, checked together before anything is loaded or trained."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fl_shield.errors import expected, raise_all, unknown
from fl_shield.simulations.arms import ARMS, Arm


@dataclass(frozen=True)
class Settings:
    """A checked configuration.

    Attributes:
        config: The whole resolved configuration, JSON-ready; components are built from it.
        arms: The arms to run, in order.
        num_attackers: Number of malicious clients.
        seed: Everything random follows from it.
        rounds: Rounds of each arm.
        num_clients: Number of clients.
        num_probes: Clean samples that the server holds.
    """

    config: Mapping[str, Any]
    arms: tuple[Arm, ...]
    num_attackers: int
    seed: int
    rounds: int
    num_clients: int
    num_probes: int

    @property
    def key(self) -> str:
        """The configuration as text; equal for equal runs, in every process."""
        return json.dumps(self.config, sort_keys=True)


def settings_from(config: DictConfig | Mapping[str, Any]) -> Settings:
    """Return the checked settings of a composed configuration.

    Raises:
        ConfigurationError: naming every setting that is impossible.
    """
    plain: dict[str, Any]
    if isinstance(config, DictConfig):
        plain = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    else:
        plain = dict(config)
    problems: list[str] = []
    for name, least in (("rounds", 1), ("num_clients", 1), ("seed", 0)):
        problems += _whole(name, plain[name], least)
    problems += _whole("probes.num_samples", plain["probes"]["num_samples"], 4)
    problems += _whole("warm_start.epochs", plain["warm_start"]["epochs"], 0)
    if not _is_number(plain["fraction_train"]) or not 0 < plain["fraction_train"] <= 1:
        problems.append(
            expected("fraction_train", "above 0 and at most 1", plain["fraction_train"])
        )
    if not _is_number(plain["round_timeout"]) or not plain["round_timeout"] > 0:
        problems.append(expected("round_timeout", "a positive time", plain["round_timeout"]))
    if plain["device"] not in ("auto", "cpu", "cuda"):
        problems.append(unknown("device", str(plain["device"]), ("auto", "cpu", "cuda")))
    arms, arm_problems = _arms(plain["arms"])
    attackers, attacker_problems = _attackers(plain["attackers"], plain["num_clients"])
    raise_all(problems + arm_problems + attacker_problems)
    return Settings(
        config=plain,
        arms=arms,
        num_attackers=attackers,
        seed=plain["seed"],
        rounds=plain["rounds"],
        num_clients=plain["num_clients"],
        num_probes=plain["probes"]["num_samples"],
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(name: str, value: object, least: int) -> list[str]:
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return []
    return [expected(name, f"a whole number of at least {least}", value)]


def _arms(names: object) -> tuple[tuple[Arm, ...], list[str]]:
    listed = [names] if isinstance(names, str) else names
    if not isinstance(listed, list) or not listed or len(set(listed)) < len(listed):
        return (), [expected("arms", f"a list of different arms out of {', '.join(ARMS)}", names)]
    problems = [unknown("arm", str(name), ARMS) for name in listed if name not in ARMS]
    return tuple(ARMS[name] for name in listed if name in ARMS), problems


def _attackers(value: object, num_clients: object) -> tuple[int, list[str]]:
    """Return the number of attackers of a share below 1 or of a count."""
    constraint = "a share of the clients from 0 to below 1, or a number of them"
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return 0, [expected("attackers", constraint, value)]
    if not isinstance(num_clients, int) or num_clients < 1:
        return 0, []  # said already
    count = int(value) if float(value).is_integer() else round(value * num_clients)
    if value < 0 or (value > 1 and not float(value).is_integer()) or count > num_clients:
        return 0, [expected("attackers", f"{constraint} (there are {num_clients})", value)]
    if count == num_clients:
        return 0, [
            f"Expected `attackers` to leave a benign client, got all {num_clients}. "
            "With nobody benign there is no clean model to protect; lower attackers."
        ]
    return count, []
