"""When an attacker attacks; in all other rounds it trains like a benign client."""

from __future__ import annotations

from dataclasses import dataclass

from fl_shield.errors import expected, raise_all


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The rounds of an attack: `first_round`, then each `every`-th one up to `last_round`.

    Attributes:
        first_round: First round of the attack; rounds count from 1.
        last_round: Last round that may be attacked; None for no end.
        every: Distance between attacked rounds.

    Raises:
        ConfigurationError: if no round could be attacked.
    """

    first_round: int = 1
    last_round: int | None = None
    every: int = 1

    def __post_init__(self) -> None:
        """Check the rounds."""
        problems = []
        if self.first_round < 1:
            problems.append(expected("schedule.first_round", "1 or more", self.first_round))
        if self.last_round is not None and self.last_round < self.first_round:
            problems.append(
                expected(
                    "schedule.last_round",
                    f"null or at least first_round={self.first_round}",
                    self.last_round,
                )
            )
        if self.every < 1:
            problems.append(expected("schedule.every", "1 or more", self.every))
        raise_all(problems)

    def active(self, round_number: int) -> bool:
        """Return whether round `round_number` (from 1) is attacked."""
        if round_number < self.first_round:
            return False
        if self.last_round is not None and round_number > self.last_round:
            return False
        return (round_number - self.first_round) % self.every == 0
