"""`fl-shield meta-train`: learns the detector from tables of shadow federations.

Every network has a checkpoint, so that a training that was stopped goes on where it was. Networks
are trained in parallel with Ray when there is more than one worker; with `RAY_ADDRESS` set, on the
cluster, if `out` is a folder that its machines share.
"""

from __future__ import annotations

import platform
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn

from fl_shield.detector.features import FeatureSpec
from fl_shield.detector.set_network import SetNetwork
from fl_shield.detector.store import save_detector
from fl_shield.errors import ConfigurationError, expected, raise_all, unknown
from fl_shield.meta.calibrate import calibrate_across
from fl_shield.meta.settings import MetaTraining
from fl_shield.meta.training import checked_features, member, train_network
from fl_shield.shadow.table import EpisodeTable, read_tables

NAME = "meta-learned detector"


def meta_train(config: DictConfig, console: Console, overrides: Sequence[str] = ()) -> int:
    """Train, calibrate and write a detector; returns an exit status.

    Raises:
        ConfigurationError: naming every setting that cannot be used.
        StateError: if a table or a checkpoint is damaged.
    """
    started = time.monotonic()
    settings = settings_of(config)
    tables = tables_of(config)
    spec = checked_features(tables, settings.leave_out)
    out = Path(config.out).expanduser().absolute()
    console.print(
        f"{len(tables)} rounds of {', '.join(sorted({t.domain for t in tables}))}; "
        f"{len(spec.names)} descriptors; {settings.networks} networks"
    )
    networks = _train(tables, spec, settings, out / "checkpoints", config, console)
    command = shlex.join(["fl-shield", "meta-train", *overrides])
    card = facts_of_training(
        tables, settings, list(config.held_out), float(config.false_alarms), command
    )
    if config.calibrate:
        console.print("threshold: each data set is scored by networks trained on the others …")
        card["calibration"] = asdict(calibrate_across(tables, settings, config.false_alarms))
    card["seconds"] = round(time.monotonic() - started, 1)
    save_detector(out, networks, spec, card)
    console.print(f"detector: {out}")
    return 0


def settings_of(config: DictConfig) -> MetaTraining:
    """Return the settings of meta-training in a configuration.

    Raises:
        ConfigurationError: naming every value that is out of range.
    """
    problems = [
        expected(f"meta_train.{key}", "1 or more", config[key])
        for key in ("workers",)
        if not isinstance(config[key], int) or config[key] < 1
    ]
    if not 0.0 < float(config.false_alarms) < 1.0:
        problems.append(expected("false_alarms", "between 0 and 1", config.false_alarms))
    raise_all(problems, ConfigurationError)
    return MetaTraining(**{field.name: config[field.name] for field in fields(MetaTraining)})


def tables_of(config: DictConfig) -> list[EpisodeTable]:
    """Return the rounds to learn from.

    Raises:
        ConfigurationError: if there are none, or `held_out` names a data set that is not there.
    """
    given = config.tables
    folders = [Path(f).expanduser() for f in (given if isinstance(given, ListConfig) else [given])]
    tables: list[EpisodeTable] = []
    for folder in folders:
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise ConfigurationError(
                f"There are no tables in {folder}. Name a folder that fl-shield shadow has written "
                "to: tables=STORE/tables."
            )
        tables += [table for file in files for table in read_tables(file)]
    known = sorted({table.domain for table in tables})
    held_out = list(config.held_out)
    raise_all([unknown("held_out", n, known) for n in held_out if n not in known])
    kept = [table for table in tables if table.domain not in held_out]
    if not kept:
        raise ConfigurationError(
            expected("held_out", f"to leave one of {', '.join(known)}", ", ".join(held_out))
        )
    return kept


def facts_of_training(
    tables: Sequence[EpisodeTable],
    settings: MetaTraining,
    held_out: Sequence[str],
    false_alarms: float,
    command: str,
) -> dict[str, Any]:
    """Return what is to be known of a detector's training, JSON-ready, for its card."""
    runs = {table.run: table for table in tables}
    attacked = [t for t in runs.values() if any(t.facts.get("wrappers", ()))]

    def count(key: str, of: Sequence[EpisodeTable]) -> dict[str, int]:
        return dict(sorted(Counter(str(t.facts.get(key)) for t in of).items()))

    wrappers = Counter(w for t in attacked for w in t.facts["wrappers"] if w)
    return {
        "name": NAME,
        "held_out": list(held_out),
        "federations": dict(sorted(Counter(t.domain for t in runs.values()).items())),
        "rounds": len(tables),
        "updates": sum(map(len, tables)),
        "attacked_federations": len(attacked),
        "architectures": count("architecture", list(runs.values())),
        "optimisers": count("optimiser", list(runs.values())),
        "triggers": count("trigger", attacked),
        "model_poisoning": dict(sorted(wrappers.items())),
        "clean_samples": sorted({int(t.facts.get("clean_samples", 0)) for t in tables}),
        "training": asdict(settings),
        "false_alarms": false_alarms,
        "command": command,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def _train(
    tables: Sequence[EpisodeTable],
    spec: FeatureSpec,
    settings: MetaTraining,
    checkpoints: Path,
    config: DictConfig,
    console: Console,
) -> list[SetNetwork]:
    files = [checkpoints / f"network-{i}.safetensors" for i in range(settings.networks)]
    if not config.resume:
        for file in files:
            file.unlink(missing_ok=True)
    members = [member(settings, index) for index in range(settings.networks)]
    if config.workers > 1:
        return _in_parallel(tables, spec, members, files, int(config.workers), console)
    with Progress(
        *Progress.get_default_columns()[:-1], TimeRemainingColumn(), console=console
    ) as bar:
        task = bar.add_task("training", total=settings.steps * settings.networks)
        networks = []
        for index, (one, file) in enumerate(zip(members, files, strict=True)):
            before = index * settings.steps

            def show(step: int, loss: float, before: int = before) -> None:
                bar.update(task, completed=before + step, description=f"training, loss {loss:.3f}")

            networks.append(train_network(tables, spec, one, show, file))
        bar.update(task, completed=settings.steps * settings.networks)
    return networks


def _in_parallel(
    tables: Sequence[EpisodeTable],
    spec: FeatureSpec,
    members: Sequence[MetaTraining],
    files: Sequence[Path],
    workers: int,
    console: Console,
) -> list[SetNetwork]:
    import ray

    from fl_shield.simulations.in_parallel import start_ray

    start_ray(workers)
    try:
        shared = ray.put(list(tables))
        remote: Any = ray.remote(num_cpus=1)(_one)
        pending = [
            remote.remote(shared, spec, one, file) for one, file in zip(members, files, strict=True)
        ]
        order = {reference: index for index, reference in enumerate(pending)}
        networks: dict[int, SetNetwork] = {}
        with Progress(console=console) as bar:
            task = bar.add_task("networks", total=len(members))
            while pending:
                ready, pending = ray.wait(pending)
                networks[order[ready[0]]] = ray.get(ready[0])
                bar.advance(task)
        return [networks[index] for index in range(len(members))]
    finally:
        ray.shutdown()


def _one(
    tables: Sequence[EpisodeTable], spec: FeatureSpec, settings: MetaTraining, file: Path
) -> SetNetwork:
    torch.set_num_threads(1)
    return train_network(tables, spec, settings, checkpoint=file)
