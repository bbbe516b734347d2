"""The learned detector: an ensemble of set networks over the features of a round, calibrated.

How the networks are heard together is in `fl_shield.detector.ensemble`.

It reads whichever of its columns a table has: images lack what only text has. Columns that it was
not trained on are ignored. The networks compare clients with each other, so that with a single
client there is nothing to compare: it stands at its own median, its relative and absolute features
are zero, and its score is what an average client of a round of one gets. With two clients each is
as far from their median as the other; the score then says how unlike they are, not which is to
blame. `MetaShield` and `fl-shield audit` suspect nobody below three clients for that reason.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fl_shield.conformal import conformal_quantile, fewest_scores, just_above
from fl_shield.descriptors.table import DescriptorTable
from fl_shield.detector.ensemble import heard, integrated_gradients, joint_log_odds
from fl_shield.detector.features import CHANNELS, FeatureSpec, features_of
from fl_shield.detector.set_network import SetNetwork
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.judge.policy import Policy

DECIMALS = 9
"""Decimals of a score; the sums over clients depend on their order far behind them."""

MAX_SHOWN = 3


@dataclass(frozen=True)
class Calibration:
    """How the networks' mean log-odds become scores, `(log-odds − offset) / scale`.

    Attributes:
        offset: Mean log-odds that become a score of 0.
        scale: Log-odds in a unit of score, above 0.
        threshold: Score from which a client is flagged, chosen for a rate of false alarms.
        even: Mean log-odds at which a client is as likely malicious as not; networks trained on
            other data sets need not have it at 0.

    Raises:
        ConfigurationError: naming every value that is out of range.
    """

    offset: float = 0.0
    scale: float = 1.0
    threshold: float = Policy.threshold
    even: float = 0.0

    def __post_init__(self) -> None:
        """Check all values at once."""
        problems = [
            expected(f"calibration.{name}", "a finite number", repr(value))
            for name in ("offset", "scale", "threshold", "even")
            if not _is_finite(value := getattr(self, name))
        ]
        if not problems and self.scale <= 0.0:
            problems.append(expected("calibration.scale", "above 0", self.scale))
        raise_all(problems, ConfigurationError)

    @property
    def even_score(self) -> float:
        """Score at which a client is as likely malicious as not."""
        return (self.even - self.offset) / self.scale

    @classmethod
    def from_benign(
        cls,
        log_odds: ArrayLike,
        false_alarms: float = 0.01,
        scale: float = 1.0,
        even: float = 0.0,
    ) -> Calibration:
        """Return the calibration at which honest updates are flagged no more often than wanted.

        The limit is the split-conformal quantile (Vovk et al., 2005, section 2.2): of n log-odds,
        the ⌈(n + 1) · (1 − false alarms)⌉-th smallest. It becomes a score of `Policy.threshold`,
        which is also the evidence that excludes a client: a larger threshold would be void, as a
        client's first score is its evidence.

        Args:
            log_odds: Mean log-odds of the networks for honest updates not used in training.
            false_alarms: Share of honest updates that may be flagged, between 0 and 1.
            scale: Log-odds in a unit of score.
            even: Mean log-odds at which a client is as likely malicious as not.

        Raises:
            ConfigurationError: if there are too few log-odds for that share, or one is not finite.
        """
        values = np.sort(np.asarray(log_odds, dtype=np.float64).ravel())
        if not 0.0 < false_alarms < 1.0:
            raise ConfigurationError(expected("false_alarms", "between 0 and 1", false_alarms))
        if not np.isfinite(values).all():
            raise ConfigurationError(expected("log_odds", "finite", "NaN or infinite values"))
        quantile = conformal_quantile(values, false_alarms)
        if quantile is None:
            needed = fewest_scores(false_alarms)
            raise ConfigurationError(
                expected(
                    "log_odds",
                    f"{needed} honest updates or more for {false_alarms:g} false alarms",
                    len(values),
                )
            )
        # A score that reaches the threshold is flagged: it lies just above the quantile.
        offset = just_above(quantile) - Policy.threshold * scale
        return cls(offset, scale, Policy.threshold, even)


class MetaDetector:
    """Scores clients by an ensemble of trained set networks.

    Args:
        networks: One or more trained networks; copies are kept, in evaluation mode, on the CPU,
            in double precision.
        spec: Columns that they read, with their units.
        calibration: From log-odds to scores, and the threshold.
        card: What is known of the training, JSON-ready; kept as it is.
        name: What logs call the detector.

    Raises:
        ConfigurationError: if there is no network, or one does not read the columns of `spec`.
    """

    def __init__(
        self,
        networks: Sequence[SetNetwork],
        spec: FeatureSpec,
        calibration: Calibration | None = None,
        card: Mapping[str, Any] | None = None,
        name: str = "meta-learned detector",
    ) -> None:
        if not networks:
            raise ConfigurationError(expected("networks", "one network or more", "none"))
        widths = {network.num_features for network in networks}
        if widths != {spec.num_features}:
            raise ConfigurationError(
                f"The networks read {', '.join(map(str, sorted(widths)))} features and the columns "
                f"make {spec.num_features} ({CHANNELS} for each of {len(spec.names)}). Give the "
                "networks the FeatureSpec that they were trained with."
            )
        self.networks = [copy.deepcopy(network).cpu().double().eval() for network in networks]
        for network in self.networks:
            network.requires_grad_(False)
        self.spec = spec
        self.calibration = calibration or Calibration()
        self.card = dict(card or {})
        self.name = name

    def __repr__(self) -> str:
        return (
            f"MetaDetector({self.name!r}, networks={len(self.networks)}, "
            f"columns={len(self.spec.names)}, calibration={self.calibration!r})"
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Descriptors that are read."""
        return self.spec.names

    @property
    def threshold(self) -> float:
        """Score from which a client is flagged."""
        return self.calibration.threshold

    @property
    def even_score(self) -> float:
        """Score at which a client is as likely malicious as not."""
        return self.calibration.even_score

    def score(self, table: DescriptorTable) -> NDArray[np.float64]:
        """Return the scores `(clients,)`: calibrated log-odds; finite.

        Raises:
            ConfigurationError: if the table has clients and none of the columns that are known.
        """
        features = self._features(table)
        if not len(table):
            return np.zeros(0)
        with torch.no_grad():
            networks = heard(self.networks, table.names)
            odds = joint_log_odds(networks, lambda network: network(features)[0])
        values = (odds.numpy() - self.calibration.offset) / self.calibration.scale
        # What is left of the clients' order is rounding; a seed shall be a result.
        return np.asarray(np.round(values, DECIMALS), dtype=np.float64)

    def contributions(self, table: DescriptorTable) -> NDArray[np.float64]:
        """Return `(clients, descriptors)` parts of the scores, zero for columns it does not know.

        Integrated gradients from a client at the cohort's median to the client itself. A client's
        parts add up, but for the error of a few steps, to its score minus the median client's.

        Raises:
            ConfigurationError: if the table has clients and none of the columns that are known.
        """
        features = self._features(table)
        parts = np.zeros((len(table), len(table.names)))
        if not len(table):
            return parts
        total = integrated_gradients(heard(self.networks, table.names), features)
        total /= self.calibration.scale
        by_column = total.reshape(len(table), CHANNELS, len(self.spec.names)).sum(dim=1)
        place = {name: column for column, name in enumerate(table.names)}
        for column, name in enumerate(self.spec.names):
            if name in place:
                parts[:, place[name]] = by_column[:, column].double().numpy()
        return parts

    def _features(self, table: DescriptorTable) -> Tensor:
        """Return the features `(1, clients, features)` of a table."""
        if len(table) and not set(table.names) & set(self.spec.names):
            raise ConfigurationError(
                f"The detector knows none of the table's columns ({_few(table.names)}); it was "
                f"trained on {_few(self.spec.names)}. Describe updates with "
                "fl_shield.inspection.Inspector, or train a detector on tables like this one."
            )
        features = features_of(self.spec, table.names, table.raw)
        return torch.from_numpy(features).double().unsqueeze(0)


def _few(names: Sequence[str]) -> str:
    more = " …" if len(names) > MAX_SHOWN else ""
    return ", ".join(map(repr, names[:MAX_SHOWN])) + more if names else "none"


def _is_finite(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]
