"""Experiment trackers behind one small protocol."""

from fl_shield.tracking.none import NoTracker
from fl_shield.tracking.protocol import Tracker
from fl_shield.tracking.wandb import WandbTracker

__all__ = ["NoTracker", "Tracker", "WandbTracker"]
