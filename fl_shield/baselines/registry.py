"""All statistics by name, and one call that computes them for a cohort."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_shield.baselines.alignins import AlignInsScore
from fl_shield.baselines.crowdguard import CrowdGuardReports
from fl_shield.baselines.deepsight import DeepSightDDif, DeepSightNEUP, DeepSightTE
from fl_shield.baselines.flame import FlameCluster, FlameDistance
from fl_shield.baselines.flare import FlareTrust
from fl_shield.baselines.fltrust import FLTrustScore
from fl_shield.baselines.foolsgold import FoolsGoldSimilarity
from fl_shield.baselines.mesas import MesasDeviation
from fl_shield.baselines.multi_krum import MultiKrum
from fl_shield.baselines.norm import NormDistance
from fl_shield.baselines.observed import Floats, Observed
from fl_shield.baselines.protocol import Statistic
from fl_shield.baselines.rflbat import RflbatDistance
from fl_shield.cohort import Cohort
from fl_shield.errors import ConfigurationError, raise_all, unknown
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.training.local import LocalTraining

_ALL: tuple[Statistic, ...] = (
    FlareTrust(),
    FlameDistance(),
    FlameCluster(),
    DeepSightDDif(),
    DeepSightNEUP(),
    DeepSightTE(),
    NormDistance(),
    MultiKrum(),
    FLTrustScore(),
    AlignInsScore(),
    FoolsGoldSimilarity(),
    RflbatDistance(),
    MesasDeviation(),
    CrowdGuardReports(),
)

STATISTICS: dict[str, Statistic] = {statistic.name: statistic for statistic in _ALL}
"""The statistics by name, in the order of tables."""


def score_all(
    cohort: Cohort,
    model: nn.Module,
    probes: ProbeSet,
    seed: int = 0,
    *,
    training: LocalTraining | None = None,
    trusted_update: NDArray[np.floating] | None = None,
    names: Collection[str] | None = None,
    final_layer: str | None = None,
) -> dict[str, Floats]:
    """Return every statistic of a cohort, `(clients,)` each; higher is more suspicious.

    Args:
        cohort: The global model and the admitted updates.
        model: The architecture; its weights do not matter and stay untouched.
        probes: Clean samples that the server holds.
        seed: Seed of noise inputs and of the server's own training.
        training: How clients train, which the servers of FLTrust and CrowdGuard imitate; None for
            the defaults.
        trusted_update: The server's update for FLTrust, instead of training one.
        names: Statistics to compute, None for all. `"fltrust"` and `"crowdguard"` are then left
            out where the probes are unlabelled or no single tensor, as there is nothing to train
            on.
        final_layer: Name of the final classification layer, None to find it.

    Raises:
        ConfigurationError: if a name is unknown, or one that is named cannot be computed.
        ModelError: if the model does not fit the cohort or the probes.
    """
    chosen = list(STATISTICS) if names is None else list(names)
    raise_all(
        [unknown("statistic", n, STATISTICS) for n in chosen if n not in STATISTICS],
        ConfigurationError,
    )
    can_train = probes.labels is not None and isinstance(probes.inputs, Tensor)
    if names is None and not can_train:
        chosen.remove("crowdguard")
        if trusted_update is None:
            chosen.remove("fltrust")
    if not len(cohort):
        return {name: np.zeros(0) for name in chosen}
    observed = Observed(
        cohort,
        model,
        probes,
        seed=seed,
        training=training,
        trusted_update=trusted_update,
        final_layer=final_layer,
    )
    return {name: STATISTICS[name].score(observed) for name in chosen}
