"""The learned detector that judges a run: which weights, and what of the run training had seen."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from fl_shield.detector import SHIPPED
from fl_shield.detector.store import read_card
from fl_shield.errors import FlShieldError
from fl_shield.simulations.arms import ARMS

CARD_PARTS = {"data": "federations", "model": "architectures", "trigger": "triggers"}
"""Parts of a run, and where a card lists those that training met."""


def seen_parts(defence: Mapping[str, Any], names: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the parts of a run that its detector met in training, None without such a detector.

    Args:
        defence: The defence's settings.
        names: Names of the run's `data`, `model` and `trigger`.
    """
    card = _card_of(defence)
    if card is None:
        return None
    return tuple(
        part for part, key in CARD_PARTS.items() if names.get(part) in (card.get(key) or {})
    )


def detector_of(config: Mapping[str, Any]) -> str | None:
    """Return the digest of the weights that a run is judged by, None if it is by no detector.

    Args:
        config: The composed configuration of the run, as `config.yaml` holds it.
    """
    if not any(arm in ARMS and ARMS[arm].defended for arm in config.get("arms") or ()):
        return None
    card = _card_of(config.get("defence") or {})
    return None if card is None else str(card["sha256"])


def _card_of(defence: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not str(defence.get("_target_", "")).endswith(".MetaShield"):
        return None
    folder = defence.get("detector")
    return _read(SHIPPED if folder is None else Path(str(folder)).expanduser())


@lru_cache
def _read(folder: Path) -> Mapping[str, Any] | None:
    try:
        return read_card(folder)
    except FlShieldError:  # the detector has gone since; the run's figures stand
        return None
