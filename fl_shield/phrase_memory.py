"""Phrases that told clients apart in earlier rounds, and are asked about again.

A search looks for what a client's weights obey and the global model does not. Once some of a
backdoor has come through, the global model obeys it, too, and a search is blind to it: but honest
training wears it down, and attackers keep it up. What told clients apart once goes on telling, less
than in its first round and, round by round, less than what a search still finds: a phrase is
remembered for the most that it ever told, which fades slowly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fl_shield.activations.phrase_growth import Tokens
from fl_shield.descriptors.candidates import lift
from fl_shield.errors import StateError

SIZE = 8
"""Phrases that are remembered."""

KEPT = 0.9
"""What is left after a round of how much a phrase told."""


class PhraseMemory:
    """Remembers the most telling phrases of the rounds so far.

    Describing a round changes nothing here but what `keep` would keep: rounds that are rehearsed,
    or described once more, leave no trace.
    """

    def __init__(self) -> None:
        self._told: dict[Tokens, float] = {}
        self._weighed: dict[Tokens, float] = {}

    @property
    def phrases(self) -> tuple[Tokens, ...]:
        """What is remembered, the most telling first."""
        return tuple(self._told)

    def recalled(self, found: Sequence[Tokens], vocabulary: int) -> list[Tokens]:
        """Return what a search found, and after it what is remembered besides.

        Args:
            found: Phrases of the round.
            vocabulary: Number of tokens; phrases of a larger vocabulary are not recalled.
        """
        fitting = (phrase for phrase in self.phrases if max(phrase) < vocabulary)
        return [*found, *(phrase for phrase in fitting if phrase not in found)]

    def weigh(self, phrases: Sequence[Tokens], answers: Tensor) -> None:
        """Note which phrases of a round told clients apart.

        A phrase tells as much as some client answers to it beyond the median client, and beyond its
        own median answer.

        Args:
            phrases: What the clients were asked about.
            answers: `(clients, phrases, classes)`.
        """
        now = dict(zip(phrases, lift(answers).amax(dim=(0, 2)).tolist(), strict=True))
        told = {phrase: KEPT * before for phrase, before in self._told.items()}
        told |= {phrase: max(value, told.get(phrase, value)) for phrase, value in now.items()}
        order = sorted(told.items(), key=lambda pair: (-pair[1], pair[0]))
        self._weighed = dict(order[:SIZE])

    def keep(self) -> None:
        """Remember the phrases of the round that was weighed last."""
        self._told = self._weighed

    def state_dict(self) -> list[dict[str, Any]]:
        """Return what must survive a restart, as JSON-ready values."""
        return [{"tokens": list(phrase), "told": told} for phrase, told in self._told.items()]

    def load_state_dict(self, state: Any) -> None:
        """Go on from a saved `state_dict`.

        Raises:
            StateError: if it is damaged.
        """
        try:
            told = {
                tuple(int(token) for token in entry["tokens"]): float(entry["told"])
                for entry in state
            }
        except (TypeError, ValueError, KeyError) as error:
            raise StateError(
                f"The phrases of the saved shield state are no lists of token numbers: {error}."
            ) from error
        if (
            len(told) > SIZE
            or any(min(phrase, default=-1) < 0 for phrase in told)
            or not all(math.isfinite(value) for value in told.values())
        ):
            raise StateError(
                f"The saved shield state should hold up to {SIZE} phrases of token numbers and how "
                f"much they told, got {state}."
            )
        self._told = self._weighed = told
