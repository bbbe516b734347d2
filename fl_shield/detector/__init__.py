"""Detectors of backdoored updates: one protocol, a learned one, an untrained rule, the default."""

from __future__ import annotations

from pathlib import Path

from fl_shield.detector.meta_detector import MetaDetector
from fl_shield.detector.protocol import Detector
from fl_shield.detector.robust_rule import RobustRule
from fl_shield.detector.store import CARD, load_detector, save_detector

__all__ = [
    "Detector",
    "MetaDetector",
    "RobustRule",
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
