"""From the settings of a study to jobs that fit: names, settings and needs are checked first."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fl_shield.errors import FlShieldError, expected, raise_all, unknown
from fl_shield.simulations.arms import ARMS
from fl_shield.simulations.composing import (
    FOLDER,
    STUDIES,
    compose_config,
    config_groups,
    top_of,
)
from fl_shield.simulations.requirements import unmet
from fl_shield.simulations.settings import Settings, settings_from
from fl_shield.simulations.study_catalogue import Catalogue, catalogue_of
from fl_shield.simulations.study_cells import GRID_OF, NO_ATTACK, NO_DEFENCE, Cell, cells_of
from fl_shield.simulations.study_job import Job

WARM = "warm"
"""What stands for the defence of the clean rounds that a data set's cells start from."""

COUNTED_FROM = frozenset({"data", "experiment"})
"""The groups whose options may say how many clients there are; those of others are components."""


@dataclass(frozen=True)
class Plan:
    """A study, ready to be run.

    Attributes:
        name: Its name.
        folder: Where the run folders of its cells lie.
        workers: Processes on this machine.
        gpus: GPUs that a cell takes.
        jobs: The cells.
        warm: Clean runs that must be finished first, as other cells start from their models.
    """

    name: str
    folder: Path
    workers: int
    gpus: float
    jobs: tuple[Job, ...]
    warm: tuple[Job, ...]


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides of the study itself, and those of every cell of it.

    A setting of `conf/study.yaml` is the study's; any other is one of `fl-shield simulate`.

    Raises:
        ConfigurationError: if one is neither, or sets for all cells what tells them apart.
    """
    primary = OmegaConf.load(FOLDER / f"{STUDIES}.yaml")
    simulate = OmegaConf.load(FOLDER / "config.yaml")
    known = {str(key) for key in (*primary, *simulate, *config_groups(), STUDIES)} - {"defaults"}
    own: list[str] = []
    cells: list[str] = []
    problems: list[str] = []
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        is_own = key == STUDIES or key.split(".")[0] == "catalogue" or (key in primary)
        (own if is_own else cells).append(override)
        top = key.split(".")[0]
        if not is_own and top not in known and not override.startswith("+"):
            problems.append(unknown("setting", top, known))
        if key in GRID_OF:
            problems.append(
                f"A study sets `{key}` for each of its cells. Choose its lists instead: "
                f"{GRID_OF[key]}."
            )
    raise_all(problems)
    return own, cells


def plan_of(
    config: DictConfig, cell_overrides: Sequence[str] = (), config_dir: str | None = None
) -> Plan:
    """Return the checked plan of a study.

    Args:
        config: The composed configuration of the study.
        cell_overrides: Overrides of every cell.
        config_dir: The user's own options, None without any.

    Raises:
        ConfigurationError: naming everything that is wrong with lists, names, settings or needs.
    """
    plain: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    raise_all(_problems(plain))
    catalogue = catalogue_of(plain, config_dir)
    cells = cells_of(plain, catalogue)
    folder = Path(plain["folder"]).expanduser().absolute()
    build = _Overrides(plain, catalogue, tuple(cell_overrides), folder)
    jobs = tuple(
        Job(plain["name"], cell, build.of(cell), folder / cell.name, config_dir=config_dir)
        for cell in cells
    )
    starts = dict.fromkeys((cell.data, cell.seed) for cell in cells if build.warm_rounds(cell.data))
    warm = tuple(
        Job(
            plain["name"], cell, build.of_warm(cell), build.warm_folder(cell), config_dir=config_dir
        )
        for data, seed in starts
        for cell in [Cell(data, NO_ATTACK, "", 0, NO_DEFENCE, seed)]
    )
    return Plan(plain["name"], folder, plain["workers"], float(plain["gpus"]), jobs, warm)


def check_cells(plan: Plan) -> dict[tuple[object, ...], Settings]:
    """Return the settings of every cell but for its seed, after checking that each can be run.

    Data, attacks, models and defences are really built, each combination once.

    Raises:
        ConfigurationError: naming every combination that cannot be run, and why.
    """
    from fl_shield.simulations.federation import build_federation
    from fl_shield.simulations.rounds import build_strategy

    checked: dict[tuple[object, ...], Settings] = {}
    built: set[tuple[object, ...]] = set()
    problems: dict[str, str] = {}
    flower = logging.getLogger("flwr")
    level = flower.level
    flower.setLevel(logging.ERROR)  # what building says, running says again
    for job in sorted(plan.jobs, key=lambda job: (job.cell.data, job.cell.attack)):
        cell = job.cell
        if cell.without_seed in checked:
            continue
        where = ", ".join(_word(part) for part in cell.without_seed if part not in ("", ()))
        try:
            settings = job.settings()
            checked[cell.without_seed] = settings
            raise_all(unmet(settings))
            attack = (cell.data, cell.attack, cell.trigger, cell.settings)
            defence = (cell.data, cell.defence, cell.settings)
            if attack not in built or defence not in built:
                # The warm start need not be there yet.
                federation = build_federation(_without_checkpoint(settings))
                build_strategy(federation, ARMS[cell.arm.name])
                built |= {attack, defence}
        except FlShieldError as error:
            problems.setdefault(str(error), where)
    flower.setLevel(level)
    raise_all([f"{where}: {sentence}" for sentence, where in problems.items()])
    return checked


def _word(part: object) -> str:
    return " ".join(part) if isinstance(part, tuple) else str(part)


def _without_checkpoint(settings: Settings) -> Settings:
    warm = {**settings.config["warm_start"], "checkpoint": None}
    return replace(settings, config={**settings.config, "warm_start": warm})


@dataclass(frozen=True)
class _Overrides:
    """Makes the overrides of cells."""

    config: Mapping[str, Any]
    catalogue: Catalogue
    last: tuple[str, ...]
    folder: Path
    counts: dict[tuple[str, ...], int] = field(default_factory=dict, init=False)

    @cached_property
    def _components(self) -> frozenset[str]:
        return frozenset(config_groups()) - COUNTED_FROM

    def warm_rounds(self, data: str) -> int:
        return self.catalogue.warm_start(data, int(self.config["warm_start"]))

    def warm_folder(self, cell: Cell) -> Path:
        return self.folder / f"{cell.data}-{WARM}-seed{cell.seed}"

    def of(self, cell: Cell) -> tuple[str, ...]:
        """Return what `fl-shield simulate` would be told for a cell."""
        names = self.catalogue
        found = [*self._shared(), *names.overrides("data_sets", cell.data)]
        if cell.attackers:
            found += names.overrides("attacks", cell.attack, cell.data)
            found += names.overrides("triggers", cell.trigger, cell.data)
        found += names.overrides("defences", cell.defence, cell.data)
        found += cell.settings
        if self.warm_rounds(cell.data):
            checkpoint = self.warm_folder(cell) / "arms" / "clean" / "checkpoint"
            found.append(f"warm_start.checkpoint='{checkpoint}'")
        return self._ended(found, cell)

    def of_warm(self, cell: Cell) -> tuple[str, ...]:
        """Return the same for the clean rounds that the cells of a data set and seed start from."""
        found = [*self._shared(), *self.catalogue.overrides("data_sets", cell.data)]
        found += self.catalogue.overrides("defences", NO_DEFENCE)
        ended = self._ended(found, cell)
        return _last_of_each([*ended, f"rounds={self.warm_rounds(cell.data)}"])

    def _shared(self) -> list[str]:
        return [str(text) for text in self.config["settings"]]

    def _ended(self, found: list[str], cell: Cell) -> tuple[str, ...]:
        fixed = [
            f"attackers={cell.attackers}", f"arms=[{cell.arm.name}]", f"seed={cell.seed}",
            f"output_root='{self.folder}'", f"run_name={cell.name}",
        ]  # fmt: skip
        texts = ["tracking=none", *found, *self.last]
        if _last_of_each(texts)[0] == "tracking=wandb":
            texts.append(f"tracking.group={self.config['name']}")
        needs_count = any("{num_attackers}" in text for text in texts)
        count = self._num_attackers(cell, texts) if needs_count else 0
        return _last_of_each([*self.catalogue.filled(texts, cell.data, count), *fixed])

    def _num_attackers(self, cell: Cell, texts: list[str]) -> int:
        """Return the cell's attackers; where there are none, a fifth: a defence assumes some.

        Components do not change their number: without them a study composes a handful of
        configurations for it, not one for every cell.
        """
        known = [
            text
            for text in texts
            if "{num_attackers}" not in text and top_of(text) not in self._components
        ]
        filled = self.catalogue.filled(known, cell.data, 0)
        overrides = (*filled, f"attackers={cell.attackers or 0.2}")
        if overrides not in self.counts:
            config = compose_config(overrides, self.catalogue.config_dir)
            self.counts[overrides] = settings_from(config).num_attackers
        return self.counts[overrides]


def _last_of_each(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the last override of each key: Hydra takes a group's choice once only."""
    return tuple({text.partition("=")[0]: text for text in overrides}.values())


def _problems(config: Mapping[str, Any]) -> list[str]:
    problems = [
        expected(key, f"a whole number of at least {least}", config[key])
        for key, least in (("workers", 1), ("warm_start", 0))
        if isinstance(config[key], bool) or not isinstance(config[key], int) or config[key] < least
    ]
    if (
        isinstance(config["gpus"], bool)
        or not isinstance(config["gpus"], int | float)
        or config["gpus"] < 0
    ):
        problems.append(expected("gpus", "a number of at least 0", config["gpus"]))
    if not isinstance(config["settings"], list):
        problems.append(
            expected("settings", "a list of overrides of fl-shield simulate", config["settings"])
        )
    if not str(config["name"] or "").strip() or "/" in str(config["name"]):
        problems.append(expected("name", "a name for the study, without slashes", config["name"]))
    return problems
