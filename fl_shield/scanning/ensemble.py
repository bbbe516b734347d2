"""Several scanners as one: their scores become p-values, and the p-values are combined.

No method catches every kind of backdoor; their scores have units of their own and cannot be added.
Each score is therefore ranked among the scores that the same scanner gives to clean samples or
models: the *conformal p-value* (Vovk et al., 2005, section 2.2), uniform for clean ones. P-values
have one unit, and are combined by Fisher's method (1925), which asks how strong the evidence is in
sum, or by the harmonic mean (Wilson, PNAS 2019), which one strong method decides even if the others
see nothing, and which bears scanners that depend on each other. Since they do, and since p-values
of few clean ones are coarse, the combination is calibrated once more on clean ones: its threshold
keeps the asked rate of false alarms whatever the dependence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_shield.errors import ConfigurationError, expected, raise_all, unknown
from fl_shield.scanning.calibration import conformal_threshold
from fl_shield.scanning.protocol import Scores, not_fitted

Combination = Literal["fisher", "harmonic"]


def conformal_p_values(scores: ArrayLike, clean_scores: ArrayLike) -> NDArray[np.float64]:
    """Return `(samples,)` shares of clean ones that score at least as high, themselves counted.

    `(1 + #{clean ≥ score}) / (n + 1)`.

    Args:
        scores: `(samples,)` scores to judge.
        clean_scores: `(n,)` scores of clean ones.

    >>> conformal_p_values([0.5, 2.0, 9.0], [1.0, 2.0, 3.0])
    array([1.  , 0.75, 0.25])
    """
    values = np.asarray(scores, dtype=np.float64).ravel()
    clean = np.sort(np.asarray(clean_scores, dtype=np.float64).ravel())
    at_least = len(clean) - np.searchsorted(clean, values, side="left")
    p_values = np.asarray((1.0 + at_least) / (len(clean) + 1.0), dtype=np.float64)
    return p_values


def fisher(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `−2 Σ ln p` of each row of `(samples, scanners)`; higher is more suspicious."""
    total: NDArray[np.float64] = -2.0 * np.log(p_values).sum(axis=1)
    return total


def harmonic(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return minus the logarithm of the harmonic mean p-value of each row (Wilson, 2019, eq. 1)."""
    mean = p_values.shape[1] / (1.0 / p_values).sum(axis=1)
    log: NDArray[np.float64] = -np.log(mean)
    return log


COMBINATIONS = {"fisher": fisher, "harmonic": harmonic}


class Ensemble:
    """Combines the scores of any scanners of one level.

    It takes scores, not scanners: sample, data and model level have other inputs, and scores are
    computed once however many ensembles are tried.

    Args:
        combination: `"fisher"` or `"harmonic"`.
        false_alarms: Share of clean samples, or models, that may be suspected.

    Raises:
        ConfigurationError: if a setting is impossible.
    """

    name = "ensemble"

    def __init__(self, combination: Combination = "fisher", false_alarms: float = 0.05) -> None:
        if combination not in get_args(Combination):
            raise ConfigurationError(unknown("combination", combination, get_args(Combination)))
        if not 0.0 < false_alarms < 1.0:
            raise ConfigurationError(expected("false_alarms", "between 0 and 1", false_alarms))
        self.combination: Combination = combination
        self.false_alarms = false_alarms
        self._clean: dict[str, NDArray[np.float64]] | None = None
        self._threshold = 0.0

    def __repr__(self) -> str:
        return f"Ensemble({self.combination!r}, false_alarms={self.false_alarms})"

    def fit(self, clean_scores: Mapping[str, ArrayLike]) -> Self:
        """Calibrate on clean samples, or models; return the ensemble.

        A clean one is ranked among the *others*: its score of the ensemble is then as that of a
        new one.

        Args:
            clean_scores: By scanner, `(clean,)` scores of the same clean ones in the same order.

        Raises:
            ConfigurationError: if there is no scanner, scores differ in number or are not finite,
                or there are too few clean ones for the rate of false alarms.
        """
        clean = {name: np.asarray(s, dtype=np.float64).ravel() for name, s in clean_scores.items()}
        _check(clean)
        size = len(next(iter(clean.values())))
        conformal_threshold(np.zeros(size), self.false_alarms, "clean ones")
        columns = []
        for scores in clean.values():
            # Among the others: itself is counted by the 1 of the numerator.
            at_least = (scores[None, :] >= scores[:, None]).sum(axis=1)
            columns.append(at_least / size)
        combined = COMBINATIONS[self.combination](np.stack(columns, axis=1))
        self._clean = clean
        self._threshold = conformal_threshold(combined, self.false_alarms, "clean ones")
        return self

    def score(self, scores: Mapping[str, ArrayLike]) -> Scores:
        """Return `(samples,)` combined scores; higher is more suspicious.

        Args:
            scores: By scanner, `(samples,)` scores of the same samples, or models.

        Raises:
            ConfigurationError: if it is not fitted, or the scanners are not those of `fit`.
        """
        return COMBINATIONS[self.combination](self.p_values(scores))

    def p_values(self, scores: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """Return `(samples, scanners)` conformal p-values, scanners in the order of `fit`."""
        if self._clean is None:
            raise not_fitted(self.name)
        judged = {name: np.asarray(s, dtype=np.float64).ravel() for name, s in scores.items()}
        _check(judged)
        if set(judged) != set(self._clean):
            raise ConfigurationError(
                expected("scores", f"those of {', '.join(self._clean)}", ", ".join(judged))
            )
        return np.stack(
            [conformal_p_values(judged[name], clean) for name, clean in self._clean.items()], axis=1
        )

    @property
    def threshold(self) -> float:
        """Combined score above which a sample, or model, is suspected.

        Raises:
            ConfigurationError: if the ensemble is not fitted.
        """
        if self._clean is None:
            raise not_fitted(self.name)
        return self._threshold


def _check(scores: Mapping[str, NDArray[np.float64]]) -> None:
    if not scores:
        raise ConfigurationError(expected("scores", "those of one scanner or more", "none"))
    problems = [
        expected(f"scores of {name}", "finite", "NaN or infinite values")
        for name, values in scores.items()
        if not np.isfinite(values).all()
    ]
    if len({len(values) for values in scores.values()}) > 1:
        sizes = ", ".join(f"{name} {len(values)}" for name, values in scores.items())
        problems.append(expected("scores", "of one number for all scanners", sizes))
    raise_all(problems)
