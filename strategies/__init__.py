"""Flower strategies: the shield, and what it is compared with."""

from fl_shield.strategies.alignins import AlignIns
from fl_shield.strategies.crowdguard import CrowdGuard
from fl_shield.strategies.deepsight import DeepSight
from fl_shield.strategies.feddefender import FedDefender
from fl_shield.strategies.flame import Flame
from fl_shield.strategies.flare import Flare
from fl_shield.strategies.fldetector import FLDetector
from fl_shield.strategies.fltrust import FLTrust
from fl_shield.strategies.foolsgold import FoolsGold
from fl_shield.strategies.mesas import Mesas
from fl_shield.strategies.meta_shield import MetaShield, shield
from fl_shield.strategies.norm_clipping import NormClipping, WeakDP
from fl_shield.strategies.rflbat import Rflbat
from fl_shield.strategies.rival import Rival
from fl_shield.strategies.rlr import RobustLearningRate
from fl_shield.strategies.run_config import options_from_run_config

__all__ = [
    "AlignIns",
    "CrowdGuard",
    "DeepSight",
    "FLDetector",
    "FLTrust",
    "FedDefender",
    "Flame",
    "Flare",
    "FoolsGold",
    "Mesas",
    "MetaShield",
    "NormClipping",
    "Rflbat",
    "Rival",
    "RobustLearningRate",
    "WeakDP",
    "options_from_run_config",
    "shield",
]
