"""How well malicious updates are told from benign ones; malicious is the positive class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fl_shield.errors import ConfigurationError, expected


def detection_rates(
    flagged: Sequence[bool], malicious: Sequence[bool]
) -> tuple[float | None, float | None]:
    """Return true and false positive rate over updates.

    Args:
        flagged: For each update, whether it was dropped or down-weighted.
        malicious: For each update, whether it came from an attacker.

    Returns:
        `(tpr, fpr)`: the flagged share of malicious and of benign updates, each None when there
        was no such update.

    Raises:
        ConfigurationError: if the two differ in length.

    >>> detection_rates([True, False, True], [True, True, False])
    (0.5, 1.0)
    """
    _check_lengths("flagged", len(flagged), len(malicious))
    pairs = list(zip(flagged, malicious, strict=True))
    hits = [bool(flag) for flag, truth in pairs if truth]
    false_alarms = [bool(flag) for flag, truth in pairs if not truth]
    return _share(hits), _share(false_alarms)


def auroc(scores: Sequence[float], malicious: Sequence[bool]) -> float | None:
    """Return the area under the ROC curve of suspicion scores.

    Args:
        scores: For each update, its score; higher is more suspicious.
        malicious: For each update, whether it came from an attacker.

    Returns:
        A number in [0, 1], ties counting one half; None unless both kinds occur.

    Raises:
        ConfigurationError: if the two differ in length.
    """
    _check_lengths("scores", len(scores), len(malicious))
    if len({bool(truth) for truth in malicious}) < 2:
        return None
    truth = np.asarray(malicious, dtype=bool)
    values = np.asarray(scores, dtype=np.float64)
    pairs = values[truth][:, None] - values[~truth][None, :]  # (malicious, benign)
    return float((pairs > 0).mean() + (pairs == 0).mean() / 2)


def _share(flags: list[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None


def _check_lengths(name: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise ConfigurationError(
            expected(f"len({name})", f"that of `malicious`, {wanted} updates", found)
        )
