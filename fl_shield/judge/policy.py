"""Policy: from which score on a client is flagged, and what then happens to its update.

A limit that hardly any honest client reaches lets an attacker pass whom the detector holds for
malicious nine times in ten. `graded` closes that gap: what is flagged is dropped, next to nothing
is passed on of what is malicious more often than `worth_losing` allows, and everything else passes
by the chance that it is benign. A third of a backdoor, round after round, is a whole one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from fl_shield.errors import ConfigurationError, expected, raise_all, unknown
from fl_shield.judge.posterior import EXPECTED_SHARE

MIN_WEIGHT = 1e-3
"""Smallest share of a flagged update that is passed on; less would be a zero update, which norm
clipping downstream divides by."""

WHOLE = 0.9
"""Chance of being benign from which an update passes as it is."""


class Action(StrEnum):
    """What is done with flagged updates."""

    DROP = "drop"
    GRADED = "graded"
    DOWNWEIGHT = "downweight"
    MONITOR = "monitor"


@dataclass(frozen=True)
class Policy:
    """The rule by which scores and evidence become decisions.

    Attributes:
        action: `drop` flagged updates; do so, and pass the others on by the odds that they are
            benign, next to nothing of them if that is below what `worth_losing` asks (`graded`);
            `downweight` flagged ones; or `monitor` (log only).
        threshold: Score (log-odds) of one round from which a client is flagged.
        evidence_threshold: Accumulated evidence from which a client is excluded.
        readmission_threshold: Evidence below which an excluded client is readmitted; lower than
            `evidence_threshold`, so that nobody flickers in and out.
        max_drop_share: Largest share of a round's admitted updates that may be dropped or
            down-weighted, in [0, 1); the least suspicious ones beyond it are kept.
        trusted: Nodes whose updates are kept whatever their scores, by the operator's word.
        banned: Nodes whose updates are dropped whatever their scores, under every action and
            beyond every limit.
        even_score: Score at which a client is as likely malicious as not where half of all are;
            None if the detector does not know, and then `graded` is `drop`.
        expected_share: Share of the clients expected to attack, in (0, 1), before a round is looked
            at; `graded` corrects it by what the round shows.
        worth_losing: Honest updates that `graded` gives up rather than pass on a malicious one.

    Raises:
        ConfigurationError: naming every setting that is out of range.
    """

    action: Action | str = Action.DROP
    threshold: float = 2.0
    evidence_threshold: float = 2.0
    readmission_threshold: float = 1.0
    max_drop_share: float = 0.45
    trusted: frozenset[int] = frozenset()
    banned: frozenset[int] = frozenset()
    even_score: float | None = None
    expected_share: float = EXPECTED_SHARE
    worth_losing: float = 6.0

    def __post_init__(self) -> None:
        """Check all settings at once."""
        problems = []
        if self.action not in set(Action):
            problems.append(
                unknown("policy", str(self.action), [action.value for action in Action])
            )
        else:
            object.__setattr__(self, "action", Action(self.action))
        problems += [
            expected(name, "a finite number", value)
            for name in ("threshold", "evidence_threshold", "readmission_threshold")
            if not _is_finite(value := getattr(self, name))
        ]
        if not problems and self.readmission_threshold >= self.evidence_threshold:
            problems.append(
                expected(
                    "readmission_threshold",
                    f"below evidence_threshold ({self.evidence_threshold:g})",
                    self.readmission_threshold,
                )
            )
        if not (_is_finite(self.max_drop_share) and 0.0 <= self.max_drop_share < 1.0):
            problems.append(
                expected(
                    "max_drop_share",
                    "at least 0 and below 1",
                    self.max_drop_share,
                    "Use 0.45 to drop at most a minority, or policy='monitor' to drop nobody.",
                )
            )
        if self.even_score is not None and not _is_finite(self.even_score):
            problems.append(expected("even_score", "a finite number or None", self.even_score))
        if not (_is_finite(self.expected_share) and 0.0 < self.expected_share < 1.0):
            problems.append(expected("expected_share", "above 0 and below 1", self.expected_share))
        if not (_is_finite(self.worth_losing) and self.worth_losing >= 0.0):
            problems.append(
                expected("worth_losing", "a finite number of at least 0", self.worth_losing)
            )
        problems += _check_pins(self.trusted, self.banned)
        raise_all(problems, ConfigurationError)

    def margin(self, score: float, evidence: float) -> float:
        """Return how far a client is beyond the nearer limit, in log-odds; negative if within."""
        return max(score - self.threshold, evidence - self.evidence_threshold)

    def max_flagged(self, num_clients: int) -> int:
        """Return how many of `num_clients` may be dropped or down-weighted."""
        return math.floor(self.max_drop_share * num_clients + 1e-9)  # 0.3 * 10 is 2.999…

    @staticmethod
    def partial_weight(margin: float) -> float:
        """Return the share of a flagged update to pass on: the odds that it is benign.

        `1 / (1 + exp(margin))`, at most one half and at least `MIN_WEIGHT`.
        """
        return max(1.0 / (1.0 + math.exp(min(max(margin, 0.0), 50.0))), MIN_WEIGHT)

    def graded_weight(self, chance: float) -> float:
        """Return the share of an update that is not flagged to pass on, in [`MIN_WEIGHT`, 1].

        Args:
            chance: How likely the client is malicious, from `fl_shield.judge.posterior`.

        Returns:
            The chance that it is benign; 1 if that is at least `WHOLE`, and `MIN_WEIGHT` if passing
            it on is expected to cost more than losing it, with `worth_losing` to 1.
        """
        if chance * self.worth_losing >= 1.0 - chance:
            return MIN_WEIGHT
        return 1.0 if 1.0 - chance >= WHOLE else 1.0 - chance


def _check_pins(trusted: frozenset[int], banned: frozenset[int]) -> list[str]:
    problems = [
        expected(name, "node ids, which are whole numbers", repr(node))
        for name, nodes in (("trusted_nodes", trusted), ("banned_nodes", banned))
        for node in sorted(nodes, key=repr)
        if not isinstance(node, int) or isinstance(node, bool)
    ]
    if both := sorted(trusted & banned, key=repr):
        problems.append(f"Node {both[0]} is both trusted and banned. Name it in one list only.")
    return problems


def _is_finite(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]
