"""From command-line overrides to a composed configuration, with one clear sentence on failure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fl_shield.errors import ConfigurationError, expected, unknown

MODULE = "fl_shield.conf"
"""The package that holds the Hydra tree."""

FOLDER = Path(__file__).resolve().parent.parent / "conf"
"""Where it lies."""

DOMAINS = "domain"
"""The folder of the shadow domains, which are no choice of a simulation."""

STUDIES = "study"
"""The folder of the studies, which are none either."""

SCANNERS = "scanner"
"""The folder of the scanners, which judge what a simulation leaves behind."""


def config_groups() -> dict[str, list[str]]:
    """Return the groups that a simulation chooses from, and their options."""
    return {
        folder.name: _options(folder)
        for folder in sorted(FOLDER.iterdir())
        if folder.name not in (DOMAINS, STUDIES, SCANNERS) and folder.is_dir() and _options(folder)
    }


def domain_files() -> dict[str, Path]:
    """Return the shadow domains, name to file."""
    return {name: FOLDER / DOMAINS / f"{name}.yaml" for name in _options(FOLDER / DOMAINS)}


def top_of(override: str) -> str:
    """Return the group or top-level setting that an override is about."""
    return re.split(r"[.@]", override.partition("=")[0].lstrip("+~"))[0]


def _options(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.yaml"))


def compose_config(
    overrides: Sequence[str], config_dir: str | None = None, name: str = "config"
) -> DictConfig:
    """Return the configuration that Hydra composes from `overrides`.

    Args:
        overrides: Hydra overrides, for example `["data=mnist", "rounds=10"]`.
        config_dir: A folder of the user's own, whose groups add options to the shipped ones.
        name: Primary configuration.

    Raises:
        ConfigurationError: in one sentence, naming the key or option and the nearest known one.
    """
    _check_known(overrides, name, has_own_folder=config_dir is not None)
    try:
        config = _compose(overrides, config_dir, name)
        OmegaConf.resolve(config)
    # Hydra raises ValueError for null groups, KeyError and TypeError for some odd overrides.
    except (
        HydraException,
        OmegaConfBaseException,
        ValueError,
        KeyError,
        TypeError,
    ) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(_one_sentence(error, overrides, config_dir, name)) from error
    return config


def _compose(overrides: Sequence[str], config_dir: str | None, name: str) -> DictConfig:
    search: list[str] = []
    if config_dir is not None:
        folder = Path(config_dir).expanduser().resolve()
        if not folder.is_dir():
            raise ConfigurationError(
                expected("--config-dir", "a folder with a Hydra tree", config_dir)
            )
        # Searched after the shipped tree, which holds config.yaml: it adds options to groups.
        search = [f"hydra.searchpath=['file://{folder}']"]
    GlobalHydra.instance().clear()
    with initialize_config_module(MODULE, version_base="1.3"):
        return compose(name, overrides=[*search, *overrides])


def _check_known(overrides: Sequence[str], primary: str, *, has_own_folder: bool) -> None:
    groups = {group: _options(FOLDER / group) for group in _groups_of(primary)}
    keys = {*groups, *_primary_keys(primary)}
    for override in overrides:
        key, equals, value = override.partition("=")
        name = key.lstrip("+~")
        if not equals and not key.startswith("~"):
            raise ConfigurationError(
                f"Expected an override of the form key=value, got {override!r}. "
                "For example: fl-shield simulate data=mnist rounds=10."
            )
        top = top_of(override)
        if top not in ("hydra", *keys) and not (has_own_folder and key.startswith("+")):
            raise ConfigurationError(unknown("setting", top, keys))
        if equals and name in groups and not has_own_folder and value not in groups[name]:
            if name == "experiment" and value == "null":
                continue
            raise ConfigurationError(unknown(name, value, groups[name]))


def _primary_keys(name: str) -> set[str]:
    primary = OmegaConf.load(FOLDER / f"{name}.yaml")
    return {str(key) for key in primary if key != "defaults"}


def _groups_of(name: str) -> set[str]:
    """Return the groups that a primary configuration chooses from."""
    primary = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    defaults = primary.get("defaults", []) if isinstance(primary, dict) else []
    return {str(group) for entry in defaults if entry != "_self_" for group in entry}


def _one_sentence(
    error: Exception, overrides: Sequence[str], config_dir: str | None, name: str
) -> str:
    text = str(error)
    refused = re.search(r"Could not (?:override|delete)[^']*'([^']+)'", text)
    if refused:
        return _unknown_key(refused.group(1), overrides, config_dir, name)
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    return f"The configuration cannot be read: {first.strip()}"


def _unknown_key(key: str, overrides: Sequence[str], config_dir: str | None, name: str) -> str:
    """Return the message for a key that is not there: the ones beside it, and how to add it."""
    parent, _, last = key.rpartition(".")
    others = [o for o in overrides if o.partition("=")[0].lstrip("+~") != key]
    add = f" To pass on a setting that the component takes but its file does not list: +{key}=…"
    try:
        section = OmegaConf.select(_compose(others, config_dir, name), parent) if parent else None
    except (HydraException, OmegaConfBaseException, ValueError, KeyError, TypeError):
        section = None
    if not isinstance(section, DictConfig):
        return f"Unknown setting {key!r}. fl-shield simulate --cfg shows all settings."
    known = [str(k) for k in section if not str(k).startswith("_")]
    return unknown(f"setting of {parent}", last, known) + add
