"""Suspicion statistics of published defences, computed on the same cohorts as the descriptors."""

from fl_shield.baselines.observed import Observed
from fl_shield.baselines.protocol import Statistic
from fl_shield.baselines.registry import STATISTICS, score_all

__all__ = ["STATISTICS", "Observed", "Statistic", "score_all"]
