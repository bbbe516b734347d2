"""Meta-training: the detector is learned from the rounds of shadow federations."""

from fl_shield.meta.settings import ALGORITHMS, MetaTraining
from fl_shield.meta.training import train_detector, train_network

__all__ = ["ALGORITHMS", "MetaTraining", "train_detector", "train_network"]
