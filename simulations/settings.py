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

COMPONENTS = {
    "data": "digits",
    "model": "digits_cnn",
    "trigger": "patch",
    "attack": "badnets",
    "training": "digits",
    "partition": "dirichlet",
    "strategy": "fedavg",
    "defence": "meta_shield",
    "tracking": "none",
}
"""Groups that name a component, each with an example."""

SECTIONS = {
    "": ("seed", "arms", "rounds", "num_clients", "fraction_train", "attackers", "round_timeout",
         "device", "output_root", "run_name"),
    "probes": ("num_samples",),
    "warm_start": ("epochs",),
    "simulation": ("client_cpus", "num_cpus"),
}  # fmt: skip
"""Sections of the configuration and the keys in each."""

DEVICES = ("auto", "cpu", "cuda")

ENGINES = ("flower", "in_process")
"""What runs the clients; run folders of before there was a choice name none, and mean the first."""


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
    def scan_final_model(self) -> bool:
        """Whether the final models are scanned; run folders of before there was a choice: no."""
        return bool(self.config.get("scan_final_model", False))

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
    problems = _structure(plain)
    raise_all(problems)  # what follows reads those keys
    for name, least in (("rounds", 1), ("num_clients", 1), ("seed", 0)):
        problems += _whole(name, plain[name], least)
    problems += _whole("probes.num_samples", plain["probes"]["num_samples"], 4)
    problems += _whole("warm_start.epochs", plain["warm_start"]["epochs"], 0)
    problems += _whole("simulation.client_cpus", plain["simulation"]["client_cpus"], 1)
    if plain["simulation"]["num_cpus"] is not None:
        problems += _whole("simulation.num_cpus", plain["simulation"]["num_cpus"], 1)
    problems += _positive("round_timeout", plain["round_timeout"])
    fraction = plain["fraction_train"]
    if not _is_number(fraction) or not 0 < fraction <= 1:
        problems.append(expected("fraction_train", "above 0 and at most 1", fraction))
    problems += _device(plain["device"])
    if plain.get("engine", ENGINES[0]) not in ENGINES:
        problems.append(unknown("engine", str(plain["engine"]), ENGINES))
    problems += _run_name(plain["run_name"])
    if not isinstance(plain.get("scan_final_model", False), bool):
        problems.append(expected("scan_final_model", "true or false", plain["scan_final_model"]))
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


def _structure(config: Mapping[str, Any]) -> list[str]:
    """Return what is missing or is no component or section; further keys are allowed."""
    problems = [
        f"Expected `{group}` to name a component, got {config.get(group)!r}. "
        f"Choose one, as in {group}={example}; fl-shield simulate --help lists them."
        for group, example in COMPONENTS.items()
        if not isinstance(config.get(group), Mapping) or "_target_" not in config[group]
    ]
    for section, keys in SECTIONS.items():
        inside = config if section == "" else config.get(section)
        if not isinstance(inside, Mapping):
            problems.append(expected(section, f"a section with {', '.join(keys)}", inside))
            continue
        problems += [
            f"The setting `{f'{section}.{key}' if section else key}` is missing."
            for key in keys
            if key not in inside
        ]
    return problems


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(name: str, value: object, least: int) -> list[str]:
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return []
    return [expected(name, f"a whole number of at least {least}", value)]


def _positive(name: str, value: object) -> list[str]:
    if isinstance(value, int | float) and _is_number(value) and value > 0:
        return []
    return [expected(name, "a number above 0", value)]


def _device(name: object) -> list[str]:
    if name not in DEVICES:
        return [unknown("device", str(name), DEVICES)]
    if name == "cuda":
        import torch  # heavy; only asked for here

        if not torch.cuda.is_available():
            return ["Expected `device` to be there, but torch finds no CUDA GPU. Set device=cpu."]
    return []


def _run_name(name: object) -> list[str]:
    if name is None or (
        str(name).strip() and str(name) not in (".", "..") and "/" not in str(name)
    ):
        return []
    return [expected("run_name", "the name of a folder, without slashes", name)]


def _arms(names: object) -> tuple[tuple[Arm, ...], list[str]]:
    listed = [names] if isinstance(names, str) else names
    if not isinstance(listed, list) or not listed or len(set(map(str, listed))) < len(listed):
        return (), [expected("arms", f"a list of different arms out of {', '.join(ARMS)}", names)]
    problems = [unknown("arm", str(name), ARMS) for name in listed if str(name) not in ARMS]
    return tuple(ARMS[str(name)] for name in listed if str(name) in ARMS), problems


def _attackers(value: object, num_clients: object) -> tuple[int, list[str]]:
    """Return the number of attackers of a share below 1 or of a count."""
    constraint = "a share of the clients from 0 to below 1, or a number of them"
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return 0, [expected("attackers", constraint, value)]
    if not isinstance(num_clients, int) or num_clients < 1:
        return 0, []  # said already
    # 1 is one client, 1.0 is all of them.
    count = value if isinstance(value, int) else round(value * num_clients)
    if value < 0 or (isinstance(value, float) and value > 1) or count > num_clients:
        return 0, [expected("attackers", f"{constraint} (there are {num_clients})", value)]
    if count == num_clients:
        cure = "With nobody benign there is no clean model to protect; lower attackers."
        return 0, [expected("attackers", "fewer than all clients", value, cure)]
    return count, []
