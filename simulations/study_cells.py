"""The cells of a study: a grid, written as groups of lists, turned into single runs.

A cell is one arm of one run: a data set, an attack with its trigger, a share of attackers, a
defence and a seed. What does not change a run is left out of its cell, so that no run is made
twice: without attackers there is no attack to tell apart, and one clean run serves every attack.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

from fl_shield.errors import ConfigurationError, expected, raise_all, unknown
from fl_shield.simulations.arms import Arm, arm_of
from fl_shield.simulations.study_catalogue import Catalogue

LISTS = ("data_sets", "attacks", "triggers", "attackers", "defences", "seeds")
"""The lists of a group, in the order in which cells are made."""

SETTINGS = "settings"
"""What else a group may have: overrides of `fl-shield simulate` for its own cells."""

GRID_OF = {
    "data": "data_sets=[mnist]",
    "attack": "attacks=[badnets]",
    "trigger": "triggers=[patch]",
    "defence": "defences=[none,meta_shield]",
    "seed": "seeds=[0]",
    "arms": "attackers=[0,0.2] and defences=[none,meta_shield]",
    "run_name": "name=…",
    "output_root": "folder=DIR",
}
"""Settings of `fl-shield simulate` that a study decides, and how it is told."""

KNOWN = (*LISTS, SETTINGS)

NO_ATTACK = "clean"
"""What stands for the attack where nobody attacks."""

NO_DEFENCE = "none"


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        data: Name of the data set.
        attack: Name of the attack, `"clean"` where nobody attacks.
        trigger: Name of the trigger, empty where nobody attacks.
        attackers: Share of the clients below 1, or a number of them; 0 where nobody attacks.
        defence: Name of the defence, `"none"` without one.
        seed: Seed of the run.
        settings: Overrides of its group, beyond those of every cell of the study.
    """

    data: str
    attack: str
    trigger: str
    attackers: float
    defence: str
    seed: int
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the run folder, and of the run in Weights & Biases."""
        attack = f"{self.attack_name}-{self.attackers:g}" if self.attackers else NO_ATTACK
        return f"{self.data}-{attack}-{self.defence}-seed{self.seed}"

    @property
    def attack_name(self) -> str:
        """What the attack is called together with its trigger."""
        return f"{self.attack}-{self.trigger}" if self.attackers else NO_ATTACK

    @property
    def configuration(self) -> str:
        """The attack with the settings of its group: what it does to a model it is shown to."""
        return configuration_of(self.attack_name, self.settings)

    @property
    def arm(self) -> Arm:
        """The one arm that this cell runs."""
        return arm_of(attacked=self.attackers > 0, defended=self.defence != NO_DEFENCE)

    @property
    def without_seed(self) -> tuple[object, ...]:
        """What cells have in common that differ in their seeds only."""
        return (self.data, self.attack, self.trigger, self.attackers, self.defence, self.settings)

    def matches(self, wanted: Mapping[str, Any]) -> bool:
        """Return whether every key of a filter names this cell.

        >>> cell = Cell("mnist", "badnets", "patch", 0.2, "flame", 0)
        >>> cell.matches({"data": "mnist", "defence": ["fl*", "krum"]}), cell.matches({"seed": 1})
        (True, False)
        """
        for key, value in wanted.items():
            patterns = value if isinstance(value, list | tuple) else [value]
            own = getattr(self, key)
            text = f"{own:g}" if isinstance(own, float) else str(own)
            if not any(own == pattern or fnmatchcase(text, str(pattern)) for pattern in patterns):
                return False
        return True


KEYS = tuple(field.name for field in fields(Cell) if field.name != SETTINGS)
"""What a filter may name."""


def configuration_of(attack_name: str, settings: Sequence[str]) -> str:
    """Return what tells an attack from the same one with other settings.

    >>> configuration_of("badnets-warp", ["trigger.strength=2"])
    'badnets-warp trigger.strength=2'
    """
    return " ".join([attack_name, *settings])


def cells_of(config: Mapping[str, Any], catalogue: Catalogue) -> list[Cell]:
    """Return the cells of a study, each once, in the order in which they are to be run.

    Args:
        config: The study's lists, its groups (which inherit the lists that they do not name), and
            its filters `include` and `exclude`.
        catalogue: What the names stand for.

    Raises:
        ConfigurationError: naming every list, name and filter that is wrong.
    """
    groups = config.get("groups") or [{}]
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        raise ConfigurationError(
            expected("groups", f"a list of mappings with {', '.join(KNOWN)}", groups)
        )
    problems: list[str] = []
    found: dict[Cell, None] = {}
    for group in groups:
        problems += [
            unknown("list of a group", str(key), KNOWN) for key in group if key not in KNOWN
        ]
        lists = {name: _as_list(group.get(name, config.get(name))) for name in LISTS}
        settings = group.get(SETTINGS) or []
        wrong = [*_problems(lists, catalogue), *_wrong_settings(settings)]
        problems += wrong
        if not wrong:
            found |= dict.fromkeys(_product(lists, tuple(settings), catalogue))
    problems += _ambiguous(found)
    include, exclude = (_filters(config, name, problems) for name in ("include", "exclude"))
    raise_all(list(dict.fromkeys(problems)))
    kept = [
        cell
        for cell in found
        if (not include or any(cell.matches(wanted) for wanted in include))
        and not any(cell.matches(unwanted) for unwanted in exclude)
    ]
    if not kept:
        raise ConfigurationError(
            "The study has no cells: `include` and `exclude` leave nothing of its groups. "
            "fl-shield study … --cells lists them without the filters."
            if found
            else "The study has no cells: one of its lists is empty."
        )
    return sorted(kept, key=lambda cell: cell.seed)  # a whole seed first, then the next


def _as_list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _problems(lists: Mapping[str, list[Any]], catalogue: Catalogue) -> list[str]:
    problems = []
    for name, kind, known in (
        ("data_sets", "data set", catalogue.names("data_sets")),
        ("attacks", "attack", catalogue.names("attacks")),
        ("triggers", "trigger", catalogue.names("triggers")),
        ("defences", "defence", catalogue.names("defences")),
    ):
        problems += [
            unknown(kind, str(item), known)
            for item in lists[name]
            if item is not None and str(item) not in known
        ]
    problems += [
        expected("attackers", "shares of the clients from 0 to below 1, or numbers of them", share)
        for share in lists["attackers"]
        if isinstance(share, bool) or not isinstance(share, int | float) or not share >= 0
    ]
    problems += [
        expected("seeds", "whole numbers of at least 0", seed)
        for seed in lists["seeds"]
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0
    ]
    return problems


def _wrong_settings(settings: object) -> list[str]:
    """Return what is wrong with the settings of a group."""
    if not isinstance(settings, list) or not all(
        isinstance(text, str) and "=" in text for text in settings
    ):
        return [expected("settings of a group", "a list of overrides like [rounds=50]", settings)]
    return [
        f"A study sets `{key}` for each of its cells. In a group, choose its lists instead: {told}."
        for key, told in (GRID_OF | {"attackers": "attackers=[0.2]"}).items()
        if key in {text.partition("=")[0].lstrip("+~") for text in settings}
    ]


def _ambiguous(cells: Iterable[Cell]) -> list[str]:
    """Return the cells that two groups ask for with different settings: one folder holds one."""
    first: dict[str, Cell] = {}
    return [
        f"Two groups ask for the cell {cell.name}, with settings {list(first[cell.name].settings)} "
        f"and {list(cell.settings)}. Leave it out of one, or give the data set or attack another "
        "name in the catalogue."
        for cell in cells
        if first.setdefault(cell.name, cell).settings != cell.settings
    ]


def _filters(
    config: Mapping[str, Any], name: str, problems: list[str]
) -> Sequence[Mapping[str, Any]]:
    given = _as_list(config.get(name))
    wrong = [item for item in given if not isinstance(item, Mapping)]
    if wrong:
        problems.append(
            expected(
                name,
                f"a list like [{{data:mnist,defence:[flame,krum]}}] of {', '.join(KEYS)}",
                wrong[0],
            )
        )
        return []
    problems += [
        unknown(f"key of {name}", str(key), KEYS)
        for item in given
        for key in item
        if key not in KEYS
    ]
    return [item for item in given if all(key in KEYS for key in item)]


def _product(
    lists: Mapping[str, list[Any]], settings: tuple[str, ...], catalogue: Catalogue
) -> Iterator[Cell]:
    triggers = lists["triggers"] or [None]
    for data, attack, trigger, attackers, defence, seed in product(
        lists["data_sets"], lists["attacks"], triggers, lists["attackers"], lists["defences"],
        lists["seeds"],
    ):  # fmt: skip
        if attackers:
            chosen = trigger or catalogue.trigger(str(data), str(attack))
            yield Cell(str(data), str(attack), str(chosen), attackers, str(defence), seed, settings)
        else:
            yield Cell(str(data), NO_ATTACK, "", 0, str(defence), seed, settings)
