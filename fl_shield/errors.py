"""Every error that fl_shield raises on purpose, and the one mould its messages are cast in.

A message says what was wrong, what was expected and how to mend it, in one sentence or two.
Faults of a *client* are never errors: they are `fl_shield.intake.Rejection` values, because
nothing that a client sends may stop a round.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class FlShieldError(Exception):
    """Base of all errors raised on purpose by fl_shield."""


class ConfigurationError(FlShieldError, ValueError):
    """A setting, argument or input file of the *user* is wrong; nothing has been run or lost."""


class DataError(ConfigurationError):
    """Data named by the user are missing, unreadable or of the wrong form."""


class ModelError(ConfigurationError):
    """A model cannot be built, loaded or looked into (for example: no penultimate layer found)."""


class StateError(FlShieldError):
    """A saved file (checkpoint, capture, detector) is damaged, truncated or of another version."""


def expected(name: str, constraint: str, value: object, cure: str = "") -> str:
    """Return the standard message: what was expected of `name`, what was found, how to mend it.

    >>> expected("num_clients", "a positive integer", 0, "Set num_clients=20.")
    'Expected `num_clients` to be a positive integer, got 0. Set num_clients=20.'
    """
    shown = repr(value) if isinstance(value, str) else str(value)
    return f"Expected `{name}` to be {constraint}, got {shown}." + (f" {cure}" if cure else "")


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name: the nearest known one, then all of them.

    >>> unknown("trigger", "pach", ["blend", "patch"])
    "Unknown trigger 'pach'. Did you mean 'patch'? Known: blend, patch."
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}."


def raise_all(problems: Sequence[str], error: type[FlShieldError] = ConfigurationError) -> None:
    """Raise one error that names every problem, or return if there is none.

    Raises:
        FlShieldError: of type `error`, if `problems` is not empty.
    """
    if problems:
        raise error("\n".join(problems))
