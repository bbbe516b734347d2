"""Rare words inserted into a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fl_shield.data.task import Modality, Task
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.triggers.protocol import check_modality
from fl_shield.triggers.spelling import spell
from fl_shield.triggers.token_insertion import Position, TokenInsertion, check_position


@dataclass(frozen=True, kw_only=True)
class Words:
    """Inserts one or several rare words (Kurita et al., Weight Poisoning Attacks, ACL 2020).

    Attributes:
        words: The words, as a list or separated by spaces.
        position: Tokens of the text that stay in front of them, 1 for right behind the
            classification token; `"random"` puts each word at its own place in each text.

    Raises:
        ConfigurationError: if there are no words or the position is impossible.
    """

    modality: ClassVar[Modality] = "text"

    words: str | Sequence[str] = ("cf", "mn")
    position: Position = 1

    def __post_init__(self) -> None:
        """Check what does not depend on the task."""
        words = self.words.split() if isinstance(self.words, str) else self.words
        object.__setattr__(self, "words", tuple(str(word) for word in words))
        problems = check_position(self.position)
        if not self.words or not all(word.strip() for word in self.words):
            problems.append(
                expected("trigger.words", "at least one word, and none empty", self.words)
            )
        raise_all(problems)

    def __str__(self) -> str:
        return f"words '{' '.join(self.words)}'"

    def bind(self, task: Task) -> TokenInsertion:
        """Return the insertion of these words' tokens into the texts of `task`.

        Raises:
            ConfigurationError: if the task is not one of text, its tokenizer does not know a
                word, or the words do not fit into its texts.
        """
        check_modality(self, task.spec)
        pieces = tuple(spell(word, task) for word in self.words)
        unbound = TokenInsertion(
            pieces=pieces, positions=(self.position,) * len(pieces), legend=str(self)
        )
        return unbound.bind(task)

    def apply(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Refuse: words have token ids only once they are bound to a task.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            f"The trigger {str(self)!r} is not bound to a task yet. Call trigger.bind(task) and "
            "apply what it returns."
        )
