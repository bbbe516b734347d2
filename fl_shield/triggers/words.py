"""Words or a sentence inserted into a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from fl_shield.data.task import Modality, Task
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.triggers.protocol import check_modality


@dataclass(frozen=True, kw_only=True)
class Words:
    """Inserts the same words into every text, after its first token.

    Rare words make the word-level backdoor of Kurita et al. (2020), a sentence makes AddSent (Dai
    et al., 2019). Later tokens move back; what no longer fits falls off the end.

    Attributes:
        words: One or several words, or a sentence.
        position: Tokens of the text that stay in front; 1 keeps the classification token first.
        token_ids: Ids of the words, set when the trigger is bound to a task.

    Raises:
        ConfigurationError: if there are no words or the position is negative.
    """

    modality: ClassVar[Modality] = "text"

    words: str | Sequence[str] = ("cf", "mn")
    position: int = 1
    token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check what does not depend on the task."""
        words = self.words.split() if isinstance(self.words, str) else self.words
        object.__setattr__(self, "words", tuple(str(word) for word in words))
        problems = []
        if not self.words:
            problems.append(expected("trigger.words", "at least one word", self.words))
        if self.position < 0:
            problems.append(expected("trigger.position", "0 or more", self.position))
        raise_all(problems)

    def __str__(self) -> str:
        text = " ".join(self.words)
        return f"words '{text if len(text) <= 24 else text[:23] + '…'}'"

    def bind(self, task: Task) -> Words:
        """Return the trigger with the token ids of its words.

        Raises:
            ConfigurationError: if the task is not one of text, its tokenizer does not know a
                word, or the words do not fit into its texts.
        """
        check_modality(self, task.spec)
        tokenizer = task.tokenizer
        if tokenizer is None:
            raise ConfigurationError(f"The data set {task.name} has no tokenizer for a trigger.")
        ids = tokenizer(" ".join(self.words), add_special_tokens=False)["input_ids"]
        if tokenizer.unk_token_id in ids:
            raise ConfigurationError(
                expected(
                    "trigger.words",
                    f"words that the tokenizer of {task.name} can spell",
                    " ".join(self.words),
                    "Choose other words, or a larger data.vocab_size.",
                )
            )
        if len(ids) + self.position >= task.spec.input_shape[0]:
            raise ConfigurationError(
                expected(
                    "trigger.words",
                    f"shorter than the {task.spec.input_shape[0]} tokens of a text",
                    f"{len(ids)} tokens",
                    "Choose fewer words, or a larger data.max_length.",
                )
            )
        return replace(self, token_ids=tuple(ids))

    def apply(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the texts with the words inserted, `(samples, length)`; chance plays no part.

        Raises:
            ConfigurationError: if the trigger was not bound to a task.
        """
        if not self.token_ids:
            raise ConfigurationError(
                "The trigger has no token ids yet. Call trigger.bind(task) first."
            )
        inserted = torch.tensor(self.token_ids).to(inputs).expand(len(inputs), -1)
        front, back = inputs[:, : self.position], inputs[:, self.position :]
        return torch.cat([front, inserted, back], dim=1)[:, : inputs.shape[1]]
