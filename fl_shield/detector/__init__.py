"""Detectors of backdoored updates: one protocol, a learned one, an untrained rule, the default."""

from __future__ import annotations

from pathlib import Path

from fl_shield.detector.meta_detector import MetaDetector
from fl_shield.detector.protocol import Detector
from fl_shield.detector.robust_rule import RobustRule
from fl_shield.detector.store import CARD, load_detector, save_detector
from fl_shield.errors import ConfigurationError, expected

__all__ = [
    "Detector",
    "MetaDetector",
    "RobustRule",
    "as_detector",
    "columns_of",
    "default_detector",
    "load_detector",
    "save_detector",
]

SHIPPED = Path(__file__).parent / "weights"
"""Folder of the detector that comes with the package."""


def default_detector() -> Detector:
    """Return the detector that `MetaShield` uses when none is given.

    It is the trained one of the package, or the untrained rule where the package has none.

    Raises:
        StateError: if the package's detector is damaged.
    """
    if (SHIPPED / CARD).is_file():
        return load_detector(SHIPPED)
    return RobustRule()


def as_detector(detector: Detector | str | Path | None) -> Detector:
    """Return a detector: the one given, the one in a folder, or the default for None.

    Raises:
        ConfigurationError: if it is none of these, or the folder holds no detector.
        StateError: if the folder's detector is damaged or of another version.
    """
    if detector is None:
        return default_detector()
    if isinstance(detector, str | Path):
        return load_detector(Path(detector).expanduser())
    if not isinstance(detector, Detector):
        raise ConfigurationError(
            expected(
                "detector",
                "a folder, or an object with name, score(table) and contributions(table)",
                type(detector).__name__,
            )
        )
    return detector


def columns_of(detector: Detector) -> tuple[str, ...] | None:
    """Return the descriptors that a detector reads, None if it does not say (as `columns`)."""
    columns = getattr(detector, "columns", None)
    return None if columns is None else tuple(columns)
