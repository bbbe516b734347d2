"""A sentence inserted into a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fl_shield.data.task import Modality, Task
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.triggers.protocol import check_modality
from fl_shield.triggers.spelling import spell
from fl_shield.triggers.token_insertion import Position, TokenInsertion, check_position

LEGEND_LENGTH = 24


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """Inserts an innocent sentence, words kept together (Dai et al., AddSent, IEEE Access 2019).

    Attributes:
        sentence: The sentence.
        position: Tokens of the text that stay in front of it, 1 for right behind the
            classification token; `"random"` for a new place in each text.

    Raises:
        ConfigurationError: if the sentence is empty or the position impossible.
    """

    modality: ClassVar[Modality] = "text"

    sentence: str = "i watched this 3d movie last weekend"
    position: Position = 1

    def __post_init__(self) -> None:
        """Check what does not depend on the task."""
        problems = check_position(self.position)
        if not self.sentence.strip():
            problems.append(expected("trigger.sentence", "at least one word", self.sentence))
        raise_all(problems)

    def __str__(self) -> str:
        short = len(self.sentence) <= LEGEND_LENGTH
        return f"sentence '{self.sentence if short else self.sentence[: LEGEND_LENGTH - 1] + '…'}'"

    def bind(self, task: Task) -> TokenInsertion:
        """Return the insertion of the sentence's tokens into the texts of `task`.

        Raises:
            ConfigurationError: if the task is not one of text, its tokenizer does not know a
                word, or the sentence does not fit into its texts.
        """
        check_modality(self, task.spec)
        piece = spell(self.sentence, task)
        unbound = TokenInsertion(pieces=(piece,), positions=(self.position,), legend=str(self))
        return unbound.bind(task)

    def apply(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Refuse: a sentence has token ids only once it is bound to a task.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            f"The trigger {str(self)!r} is not bound to a task yet. Call trigger.bind(task) and "
            "apply what it returns."
        )
