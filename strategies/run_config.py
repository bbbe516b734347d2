"""The shield's settings from Flower's run configuration: `shield.*` keys to keyword arguments.

Which keys there are, and what they hold, is read from the signature of `MetaShield`: an option that
it gains, the run configuration gains with it. Options that only an object can fill, such as
`inspector`, have no key.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Union, get_args, get_origin

from fl_shield.errors import ConfigurationError, expected, raise_all, unknown
from fl_shield.strategies.meta_shield import MetaShield

PREFIX = "shield."
"""Begins every key of the shield; all other keys of a run configuration are the user's own."""

_SCALARS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
}
"""Kinds of value that a run configuration can hold, and how they are called to a person."""

_NODES = "node ids in quotes, separated by commas"


def options_from_run_config(run_config: Mapping[str, object]) -> dict[str, Any]:
    """Return the keyword arguments of `MetaShield` that a run configuration sets.

    Every option of `MetaShield` that a scalar can express has a key: `max_drop_share` is
    `shield.max-drop-share`. Node ids are a text, `shield.trusted-nodes = "12, 34"`, because they
    are 64-bit numbers. An empty text leaves an option at its default, so that an app can list a key
    for `--run-config`, which takes listed keys only, without deciding on it.

    >>> options_from_run_config({"lr": 0.1, "shield.policy": "monitor", "shield.threshold": 2})
    {'policy': 'monitor', 'threshold': 2}

    Args:
        run_config: `context.run_config` of a `ServerApp`, tables flattened to dotted keys.

    Raises:
        ConfigurationError: naming every `shield.*` key that is unknown, with the nearest one, and
            every value of a wrong type. Ranges are checked by `MetaShield`.
    """
    known = _kinds()
    options: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in run_config.items():
        if not key.startswith(PREFIX):
            continue
        if key not in known:
            problems.append(_unknown(key, known))
        elif value != "":
            try:
                options[_option(key)] = _read(key, value, known[key])
            except ConfigurationError as problem:
                problems.append(str(problem))
    raise_all(problems)
    return options


def _kinds() -> dict[str, frozenset[type]]:
    """Return the keys, each with the types that its option takes; `Iterable` is for node ids."""
    hints = typing.get_type_hints(MetaShield.__init__)
    kinds = {_key(name): _accepted(hints[name]) for name in _options()}
    return {key: accepted for key, accepted in kinds.items() if accepted}


def _options() -> list[str]:
    parameters = inspect.signature(MetaShield).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]


def _accepted(hint: Any) -> frozenset[type]:
    """Return the types among a type hint's that a run configuration can express."""
    if get_origin(hint) in (Union, types.UnionType):
        return frozenset().union(*(_accepted(part) for part in get_args(hint)))
    if get_origin(hint) is Iterable and get_args(hint) == (int,):
        return frozenset({Iterable})
    return frozenset({hint}) if hint in _SCALARS else frozenset()


def _read(key: str, value: object, kinds: frozenset[type]) -> object:
    if Iterable in kinds:
        return _node_ids(key, value)
    # bool is an int to Python, and a whole number may stand for any number.
    if type(value) in kinds or (type(value) is int and float in kinds):
        return value
    wanted = " or ".join(name for kind, name in _SCALARS.items() if kind in kinds)
    cure = ""
    if isinstance(value, str) and str not in kinds:
        cure = "Write the value without quotes, or leave it empty for the default."
    raise ConfigurationError(expected(key, wanted, value, cure))


def _node_ids(key: str, value: object) -> tuple[int, ...]:
    words = value.split(",") if isinstance(value, str) else [repr(value)]
    ids = [word.strip() for word in words if word.strip()]
    if isinstance(value, bool) or not all(word.isdecimal() for word in ids):
        raise ConfigurationError(
            expected(
                key, _NODES, value, "`flwr supernode list` shows them, and so does the audit log."
            )
        )
    return tuple(int(word) for word in ids)


def _unknown(key: str, known: Iterable[str]) -> str:
    if _option(key) in _options() and _key(_option(key)) == key:
        return (
            f"The run configuration cannot express {key!r}, which is an object. "
            f"Pass {_option(key)}=… to MetaShield in Python."
        )
    return unknown("key of the run configuration", key, known)


def _key(option: str) -> str:
    return PREFIX + option.replace("_", "-")


def _option(key: str) -> str:
    return key.removeprefix(PREFIX).replace("-", "_")
