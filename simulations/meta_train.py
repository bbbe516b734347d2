"""`fl-shield meta-train`: learns the detector from tables of shadow federations.

Every network has a checkpoint, so that a training that was stopped goes on where it was. Networks
are trained in parallel with Ray when there is more than one worker; with `RAY_ADDRESS` set, on the
cluster, if `out` is a folder that its machines share. It is tracked as simulations are.
"""

from __future__ import annotations

import platform
import shlex
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn

from fl_shield.detector.features import FeatureSpec
from fl_shield.detector.meta_detector import MetaDetector
from fl_shield.detector.set_network import SetNetwork
from fl_shield.detector.store import save_detector
from fl_shield.errors import ConfigurationError, FlShieldError, expected, raise_all, unknown
from fl_shield.meta.calibrate import Scored, judge_unseen, log_odds, mean_auroc
from fl_shield.meta.settings import MetaTraining
from fl_shield.meta.training import checked_features, members, train_network
from fl_shield.shadow.table import EpisodeTable, read_tables
from fl_shield.simulations.in_parallel import in_parallel, is_in_process
from fl_shield.simulations.meta_tracking import start_tracker, track_detector, track_network
from fl_shield.tracking import Tracker

NAME = "meta-learned detector"


def meta_train(config: DictConfig, console: Console, overrides: Sequence[str] = ()) -> int:
    """Train, calibrate and write a detector; returns an exit status.

    Raises:
        ConfigurationError: naming every setting that cannot be used.
        StateError: if a table or a checkpoint is damaged.
    """
    started = time.monotonic()
    settings = settings_of(config)
    tables, unseen = tables_of(config)
    spec = checked_features(tables, settings.leave_out)
    out = Path(config.out).expanduser().absolute()
    console.print(
        f"{len(tables)} rounds of {', '.join(sorted({t.domain for t in tables}))}; "
        f"{len(spec.names)} descriptors; {len(members(settings, spec))} networks"
    )
    tracker = start_tracker(config, out)
    networks = _train(tables, spec, settings, out / "checkpoints", config, console, tracker)
    command = shlex.join(["fl-shield", "meta-train", *overrides])
    card = facts_of_training(
        tables, settings, list(config.held_out), float(config.false_alarms), command
    )
    aurocs: dict[str, float | None] = {}
    if config.calibrate:
        console.print("threshold: each data set is scored by networks trained on the others …")
        calibration, aurocs = judge_unseen(tables, settings, config.false_alarms)
        card["calibration"] = asdict(calibration)
    card["unseen_auroc"] = aurocs | _aurocs(MetaDetector(networks, spec), unseen)
    card["seconds"] = round(time.monotonic() - started, 1)
    save_detector(out, networks, spec, card)
    track_detector(tracker, card)
    for domain, area in card["unseen_auroc"].items():
        shown = "–" if area is None else f"{area:.3f}"
        console.print(f"AUROC in a round of {domain}, not trained on: {shown}", highlight=False)
    console.print(f"detector: {out}")
    if tracker.folder is not None:
        console.print(f"W&B runs: {tracker.folder}", highlight=False, soft_wrap=True)
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
    known = [field.name for field in fields(MetaTraining) if field.name != "reads"]
    return MetaTraining(**{name: config[name] for name in known})


def tables_of(config: DictConfig) -> tuple[list[EpisodeTable], list[EpisodeTable]]:
    """Return the rounds to learn from, and those of the data sets that are held out.

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
    return kept, [table for table in tables if table.domain in held_out]


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
    tracker: Tracker,
) -> list[SetNetwork]:
    jobs = [
        NetworkJob(index, one, checkpoints / f"network-{index}.safetensors")
        for index, one in enumerate(members(settings, spec))
    ]
    if not config.resume:
        for job in jobs:
            job.checkpoint.unlink(missing_ok=True)
    steps = [job.settings.steps for job in jobs]
    with Progress(
        *Progress.get_default_columns()[:-1], TimeRemainingColumn(), console=console
    ) as bar:
        task = bar.add_task("training", total=sum(steps))

        def show(index: int, step: int, loss: float) -> None:
            done = sum(steps[:index]) + step
            bar.update(task, completed=done, description=f"training, loss {loss:.3f}")

        workers = int(config.workers)
        watch = show if is_in_process(workers, len(jobs)) else None  # it cannot leave this process
        networks: dict[int, SetNetwork] = {}
        for job, outcome in in_parallel(partial(_one, tables, spec, watch), jobs, workers):
            networks[job.index] = _checked(outcome)
            track_network(tracker, job.index, job.checkpoint)
            bar.update(task, completed=sum(steps[i] for i in networks))
    return [networks[index] for index in range(len(jobs))]


@dataclass(frozen=True)
class NetworkJob:
    """One network to train, and the file that keeps how far it has come."""

    index: int
    settings: MetaTraining
    checkpoint: Path


def _one(
    tables: Sequence[EpisodeTable],
    spec: FeatureSpec,
    watch: Callable[[int, int, float], None] | None,
    job: NetworkJob,
) -> SetNetwork:
    """Train one network, telling `watch` of every step; without it, as one process of several."""
    if watch is None:
        torch.set_num_threads(1)
    progress = None if watch is None else partial(watch, job.index)
    return train_network(tables, spec, job.settings, progress, job.checkpoint)


def _checked(outcome: SetNetwork | Exception) -> SetNetwork:
    """Return a trained network.

    Raises:
        FlShieldError: as the training raised it, or if its process died.
    """
    if isinstance(outcome, SetNetwork):
        return outcome
    if type(outcome).__module__.startswith("ray."):
        raise FlShieldError(
            f"The process of a network died ({str(outcome).strip().splitlines()[0]}). What is "
            "trained is kept: run the same command again, with fewer workers if memory ran out."
        ) from outcome
    raise outcome


def _aurocs(detector: MetaDetector, tables: Sequence[EpisodeTable]) -> dict[str, float | None]:
    """Return the mean AUROC of a round for each data set; not of tables that it cannot read."""
    rounds: dict[str, list[Scored]] = {}
    for table in tables:
        if set(detector.spec.names) & set(table.names):
            rounds.setdefault(table.domain, []).append((log_odds(detector, table), table.malicious))
    return {domain: mean_auroc(found) for domain, found in sorted(rounds.items())}
