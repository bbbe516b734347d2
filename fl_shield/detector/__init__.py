"""Detectors of backdoored updates: one protocol, an untrained rule, and the default."""

from __future__ import annotations

from fl_shield.detector.protocol import Detector
from fl_shield.detector.robust_rule import RobustRule

__all__ = ["Detector", "RobustRule", "default_detector"]


def default_detector() -> Detector:
    """Return the detector that `MetaShield` uses when none is given."""
    return RobustRule()
