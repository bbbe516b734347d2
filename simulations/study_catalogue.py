"""What the names in a study stand for: overrides of `fl-shield simulate`.

A name is an entry of the study's `catalogue`, or else an option of the group of that name in
`conf/` (`attack`, `trigger`, `defence`, `data`). Entries may hold what is known only later:

    {data_root}  {detectors}  {data}  {num_attackers}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fl_shield.errors import ConfigurationError, expected, raise_all, unknown
from fl_shield.simulations.composing import FOLDER

GROUPS = {"data_sets": "data", "attacks": "attack", "triggers": "trigger", "defences": "defence"}
"""Parts of a catalogue, and the group of `conf/` whose options need no entry."""

PARTS_OF_DATA = ("settings", "attacks", "triggers", "defences", "warm_start")
"""What the entry of a data set may hold besides a plain list of overrides."""


@dataclass(frozen=True)
class Catalogue:
    """The names of a study.

    Attributes:
        entries: Part to name to overrides; the entry of a data set may be a mapping with
            `settings`, `attacks`, `triggers` and `defences` (further overrides where those meet the
            data set) and `warm_start` (clean rounds before every cell of it).
        data_root: Folder of data sets that are files, None if there is none.
        detectors: Folder of detectors that leave out a data set each, None if there is none.
        config_dir: Folder of the user's own that adds options to the groups, None without one.
    """

    entries: Mapping[str, Mapping[str, Any]]
    data_root: str | None = None
    detectors: str | None = None
    config_dir: str | None = None

    def names(self, part: str) -> set[str]:
        """Return every name that a list of a study may hold."""
        folders = [FOLDER / GROUPS[part]]
        if self.config_dir is not None:
            folders.append(Path(self.config_dir).expanduser() / GROUPS[part])
        options = {file.stem for folder in folders for file in folder.glob("*.yaml")}
        return options | set(self.entries.get(part) or {})

    def overrides(self, part: str, name: str, data: str | None = None) -> list[str]:
        """Return the overrides that a name stands for, where it meets the data set `data`."""
        entry = (self.entries.get(part) or {}).get(name)
        if entry is None:
            found = [f"{GROUPS[part]}={name}"]
        else:
            found = _texts(entry.get("settings") or [] if isinstance(entry, Mapping) else entry)
            if part == "data_sets" and not any(text.startswith("data=") for text in found):
                found = [f"data={name}", *found]
        if data is not None:
            found = [*found, *_texts((self._data_entry(data).get(part) or {}).get(name) or [])]
        return found

    def warm_start(self, data: str, usual: int) -> int:
        """Return the clean rounds that every cell of a data set starts from."""
        rounds = self._data_entry(data).get("warm_start")
        return usual if rounds is None else int(rounds)

    def trigger(self, data: str, attack: str) -> str:
        """Return the trigger that is used where a study names none: the attack's, or the data's."""
        overrides = [
            *self.overrides("data_sets", data),
            *(self.overrides("attacks", attack, data) if attack else ()),
        ]
        chosen = [text.partition("=")[2] for text in overrides if text.startswith("trigger=")]
        if chosen:
            return str(chosen[-1])
        option = next(text.partition("=")[2] for text in overrides if text.startswith("data="))
        file = FOLDER / "data" / f"{option}.yaml"
        if self.config_dir is not None and not file.is_file():
            file = Path(self.config_dir).expanduser() / "data" / f"{option}.yaml"
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        for line in content.get("defaults", []):
            for key, value in line.items():
                if "/trigger" in str(key):
                    return str(value)
        return "patch"  # as conf/config.yaml has it

    def filled(self, overrides: list[str], data: str, num_attackers: int) -> list[str]:
        """Return overrides with everything put in that was not known before.

        Raises:
            ConfigurationError: if a folder is needed that the study does not name.
        """
        known = {
            "data": data,
            "num_attackers": str(num_attackers),
            "data_root": self.data_root,
            "detectors": self.detectors,
        }
        for name, cure in (
            (
                "data_root",
                f"Set data_root=DIR (or FL_SHIELD_DATA) to the folder that holds {data}/.",
            ),
            (
                "detectors",
                "Set detectors=DIR to the folder of detectors that leave out a data set.",
            ),
        ):
            if known[name] is None and any(f"{{{name}}}" in text for text in overrides):
                raise ConfigurationError(f"The data set {data!r} needs `{name}`. {cure}")
        return [
            re.sub(r"\{(\w+)\}", lambda found: str(known.get(found[1], found[0])), text)
            for text in overrides
        ]

    def _data_entry(self, data: str) -> Mapping[str, Any]:
        entry = (self.entries.get("data_sets") or {}).get(data)
        return entry if isinstance(entry, Mapping) else {}


def catalogue_of(config: Mapping[str, Any], config_dir: str | None = None) -> Catalogue:
    """Return the catalogue of a study's configuration.

    Raises:
        ConfigurationError: naming every entry that is none.
    """
    entries = config.get("catalogue") or {}
    problems = [
        unknown("part of the catalogue", str(part), GROUPS)
        for part in entries
        if part not in GROUPS
    ]
    for part, named in entries.items():
        for name, entry in (named or {}).items():
            where = f"catalogue.{part}.{name}"
            if part == "data_sets" and isinstance(entry, Mapping):
                problems += [
                    unknown(f"part of {where}", str(key), PARTS_OF_DATA)
                    for key in entry
                    if key not in PARTS_OF_DATA
                ]
            elif not isinstance(entry, list):
                problems.append(expected(where, "a list of overrides of fl-shield simulate", entry))
    raise_all(problems)
    return Catalogue(entries, config.get("data_root"), config.get("detectors"), config_dir)


def _texts(overrides: Any) -> list[str]:
    return [str(text) for text in overrides]
