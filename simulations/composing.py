"""From command-line overrides to a composed configuration, with one clear sentence on failure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fl_shield.errors import ConfigurationError, unknown

MODULE = "fl_shield.conf"
"""The package that holds the Hydra tree."""


def config_groups() -> dict[str, list[str]]:
    """Return the groups of the Hydra tree and their options."""
    root = Path(__file__).resolve().parent.parent / "conf"
    return {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
        for folder in sorted(root.iterdir())
        if folder.is_dir() and any(folder.glob("*.yaml"))
    }


def compose_config(
    overrides: Sequence[str], config_dir: str | None = None, name: str = "config"
) -> DictConfig:
    """Return the configuration that Hydra composes from `overrides`.

    Args:
        overrides: Hydra overrides, for example `["data=mnist", "rounds=10"]`.
        config_dir: A folder of the user's own that is searched as well.
        name: Primary configuration.

    Raises:
        ConfigurationError: in one sentence, naming the key or option and the nearest known one.
    """
    _check_known(overrides, has_own_folder=config_dir is not None)
    extra = [f"hydra.searchpath=[pkg://{MODULE}]"] if config_dir else []
    GlobalHydra.instance().clear()
    try:
        if config_dir:
            folder = Path(config_dir).expanduser().resolve()
            if not folder.is_dir():
                raise ConfigurationError(f"There is no configuration folder {config_dir!r}.")
            with initialize_config_dir(str(folder), version_base="1.3"):
                config = compose(name, overrides=[*extra, *overrides])
        else:
            with initialize_config_module(MODULE, version_base="1.3"):
                config = compose(name, overrides=list(overrides))
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigurationError(_one_sentence(error)) from error
    return config


def _check_known(overrides: Sequence[str], *, has_own_folder: bool) -> None:
    groups = config_groups()
    keys = {*groups, *_primary_keys()}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigurationError(
                f"Expected an override of the form key=value, got {override!r}. "
                "For example: fl-shield simulate data=mnist rounds=10."
            )
        name = key.lstrip("+~")
        top = re.split(r"[.@]", name)[0]
        if top != "hydra" and top not in keys and not key.startswith("+"):
            raise ConfigurationError(unknown("setting", top, keys))
        if name in groups and value not in (*groups[name], "null") and not has_own_folder:
            raise ConfigurationError(unknown(name, value, groups[name]))


def _primary_keys() -> set[str]:
    primary = OmegaConf.load(Path(__file__).resolve().parent.parent / "conf" / "config.yaml")
    return {str(key) for key in primary if key != "defaults"}


def _one_sentence(error: Exception) -> str:
    text = str(error)
    key = re.search(r"Key '([^']+)' is not in struct", text)
    full = re.search(r"full_key: (\S+)", text)
    if key:
        where = full.group(1) if full else key.group(1)
        group = where.rpartition(".")[0]
        return (
            f"Unknown setting {where!r}. See the settings"
            f"{f' of {group}' if group else ''} with: fl-shield simulate --cfg; "
            f"to add one that a component takes, write +{where}=…"
        )
    foreign = re.search(r"Could not override '([^']+)'", text)
    if foreign:
        return (
            f"Unknown setting {foreign.group(1)!r}. See the settings of "
            f"{foreign.group(1).rpartition('.')[0] or 'a run'} with: fl-shield simulate --cfg."
        )
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    return f"The configuration cannot be read: {first.strip()}"
