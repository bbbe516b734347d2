"""`fl-shield shadow`: plays shadow federations and describes their rounds, in parallel with Ray.

One machine or a cluster, the same command: with `RAY_ADDRESS` set, Ray's workers are used, and the
store must be a folder that they share. What is on disk is not played again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import Progress

from fl_shield.errors import ConfigurationError, expected, unknown
from fl_shield.shadow.describe import CLEAN_SAMPLES, describe_run
from fl_shield.shadow.domain import Domain
from fl_shield.shadow.recipe import EVALUATION, POTENT, SETTLED, WORKING, RecipeRanges
from fl_shield.shadow.store import play, run_name, stored_run
from fl_shield.shadow.table import write_tables
from fl_shield.simulations.composing import domain_files
from fl_shield.simulations.federation import build
from fl_shield.simulations.in_parallel import in_parallel

EVALUATION_SEED = 1_000_000
"""Federations of the evaluation are numbered from here: no training seed reaches it."""

RANGES = {
    "training": RecipeRanges(),
    "potent": POTENT,
    "working": WORKING,
    "settled": SETTLED,
    "evaluation": EVALUATION,
}


@dataclass(frozen=True)
class ShadowJob:
    """One federation to play and describe."""

    domain: str
    seed: int
    data_root: str | None
    ranges: RecipeRanges
    store: Path
    keep_weights: bool
    clean_samples: int
    rivals: bool
    leave_out: tuple[str, ...]

    @property
    def table(self) -> Path:
        """Where its table goes."""
        folder = tables_folder(self.store, self.clean_samples)
        return folder / f"{run_name(self.domain, self.seed)}.safetensors"

    def run(self) -> Path:
        """Play and describe it, unless that is done, and return the table's path."""
        if self.table.is_file():
            return self.table
        domain = load_domain(self.domain, self.data_root)
        folder = play(domain, self.seed, self.ranges, self.store / "episodes")
        tables = describe_run(
            stored_run(folder), domain, self.clean_samples,
            rivals=self.rivals, leave_out=self.leave_out,
        )  # fmt: skip
        write_tables(self.table, tables)
        if not self.keep_weights:
            shutil.rmtree(folder)
        return self.table


def tables_folder(store: Path, clean_samples: int) -> Path:
    """Return the folder of the tables that a server with so many clean samples would make."""
    is_usual = clean_samples == CLEAN_SAMPLES
    return store / ("tables" if is_usual else f"tables-{clean_samples}-samples")


@lru_cache(maxsize=16)
def load_domain(name: str, data_root: str | None) -> Domain:
    """Return the domain of a file in `conf/domain/`, from this process's cache if it was built.

    Args:
        name: Its name.
        data_root: Folder of the data sets that are files, for domains that need one.

    Raises:
        ConfigurationError: if there is no such domain, or it needs data and has no root.
    """
    known = domain_files()
    if name not in known:
        raise ConfigurationError(unknown("domain", name, known))
    text = known[name].read_text(encoding="utf-8")
    if data_root is None and "${data_root}" in text:
        raise ConfigurationError(
            f"The domain {name!r} reads files. Set data_root=DIR (or FL_SHIELD_DATA) to the folder "
            f"that holds {name}/; digits, glyphs, photos, docstrings and manuals need none."
        )
    whole = OmegaConf.create({"data_root": data_root, "domain": OmegaConf.create(text)})
    OmegaConf.resolve(whole)
    domain: Domain = build(whole["domain"], f"domain {name}")
    return domain


def shadow(config: DictConfig, console: Console) -> int:
    """Play and describe all the federations of a configuration; returns an exit status."""
    jobs = list(_jobs(config))
    done = sum(job.table.is_file() for job in jobs)
    console.print(f"{len(jobs)} federations, {done} of them finished earlier → {config.store}")
    failed = 0
    with Progress(console=console) as progress:
        task = progress.add_task("shadow federations", total=len(jobs), completed=done)
        todo = [job for job in jobs if not job.table.is_file()]
        for job, outcome in in_parallel(_run, todo, int(config.workers)):
            progress.advance(task)
            if isinstance(outcome, ConfigurationError):
                raise outcome
            if isinstance(outcome, Exception):
                failed += 1
                console.print(
                    f"{job.domain} {job.seed} failed: {type(outcome).__name__}: {outcome}"
                )
    console.print(f"tables: {tables_folder(Path(config.store), int(config.clean_samples))}")
    return 1 if failed else 0


def _jobs(config: DictConfig) -> Iterator[ShadowJob]:
    problems = [
        expected(f"shadow.{key}", f"{least} or more", config[key])
        for key, least in (("runs", 1), ("workers", 1), ("clean_samples", 0))
        if not isinstance(config[key], int) or config[key] < least
    ]
    problems += [
        expected(f"shadow.{key}", wanted, config[key])
        for key, wanted in (("keep_weights", "true or false"), ("rivals", "true, false or null"))
        if not isinstance(config[key], bool) and not (key == "rivals" and config[key] is None)
    ]
    known = domain_files()
    for key in ("domains", "leave_out"):
        if not OmegaConf.is_list(config[key]):
            cure = f'Write {key}=["{config[key]}"].'
            problems.append(expected(f"shadow.{key}", "a list", config[key], cure))
    if OmegaConf.is_list(config.domains):
        problems += [unknown("domain", name, known) for name in config.domains if name not in known]
    if config.kind not in RANGES:
        problems.append(unknown("shadow.kind", str(config.kind), RANGES))
    if problems:
        raise ConfigurationError(" ".join(problems))
    ranges = _ranges(config)
    is_evaluation = config.kind == "evaluation"
    rivals = is_evaluation if config.rivals is None else bool(config.rivals)
    first = int(config.seed) + (EVALUATION_SEED if is_evaluation else 0)
    for seed in range(first, first + config.runs):
        for name in config.domains:
            yield ShadowJob(
                name, seed, config.data_root, ranges, Path(config.store).expanduser().absolute(),
                bool(config.keep_weights), int(config.clean_samples), rivals,
                tuple(config.leave_out),
            )  # fmt: skip


def _ranges(config: DictConfig) -> RecipeRanges:
    given: dict[str, Any] = OmegaConf.to_container(config.ranges)  # type: ignore[assignment]
    changes = {key: value for key, value in given.items() if value is not None}
    ranges = RANGES[config.kind]
    known = vars(ranges)
    wrong = []
    for key, value in changes.items():
        if key not in known:
            wrong.append(unknown("setting of ranges", key, known))
        elif isinstance(known[key], tuple) != isinstance(value, list):
            # A word is a sequence as well, and would be read letter by letter.
            wanted = "a list" if isinstance(known[key], tuple) else "one number"
            wrong.append(expected(f"ranges.{key}", wanted, value))
    if wrong:
        raise ConfigurationError(" ".join(wrong))
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}
    return replace(ranges, **values)


def _run(job: ShadowJob) -> Path:
    import torch

    torch.set_num_threads(1)
    return job.run()
