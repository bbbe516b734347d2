"""The defence of a run that has none."""

from __future__ import annotations

from typing import Any

from flwr.serverapp.strategy import Strategy


def no_defence(strategy: Strategy, *_args: Any, **_options: Any) -> Strategy:
    """Return the strategy as it is; takes what other defences take, and ignores it."""
    return strategy
