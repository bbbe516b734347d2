"""Phrases that told clients apart in earlier rounds, and are asked about again.

A search looks for what a client's weights obey and the global model does not. Once some of a
backdoor has come through, the global model obeys it, too, and a search is blind to it: but honest
training wears it down, and attackers keep it up. What told clients apart once goes on telling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fl_shield.descriptors.candidates import lift
from fl_shield.errors import StateError

SIZE = 6
"""Phrases that are remembered."""

Tokens = tuple[int, ...]


class PhraseMemory:
    """Remembers the most telling phrases of the rounds so far.

    Describing a round changes nothing here but what `keep` would keep: rounds that are rehearsed,
    or described once more, leave no trace.

    Attributes:
        phrases: What is remembered, the most telling first.
    """

    def __init__(self) -> None:
        self.phrases: tuple[Tokens, ...] = ()
        self._telling: tuple[Tokens, ...] = ()

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
        told = lift(answers).amax(dim=(0, 2)).tolist()
        order = sorted(zip(told, phrases, strict=True), key=lambda pair: (-pair[0], pair[1]))
        self._telling = tuple(phrase for _, phrase in order[:SIZE])

    def keep(self) -> None:
        """Remember the phrases of the round that was weighed last."""
        self.phrases = self._telling

    def state_dict(self) -> list[list[int]]:
        """Return what must survive a restart, as JSON-ready values."""
        return [list(phrase) for phrase in self.phrases]

    def load_state_dict(self, state: Any) -> None:
        """Go on from a saved `state_dict`.

        Raises:
            StateError: if it is damaged.
        """
        try:
            phrases = tuple(tuple(int(token) for token in phrase) for phrase in state)
        except (TypeError, ValueError) as error:
            raise StateError(
                f"The phrases of the saved shield state are no lists of token numbers: {error}."
            ) from error
        if len(phrases) > SIZE or any(min(phrase, default=-1) < 0 for phrase in phrases):
            raise StateError(
                f"The saved shield state should hold up to {SIZE} phrases of token numbers, "
                f"got {phrases}."
            )
        self.phrases = self._telling = phrases
