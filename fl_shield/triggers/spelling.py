"""From words to token ids, as the tokenizer of a task spells them."""

from __future__ import annotations

from fl_shield.data.task import Task
from fl_shield.errors import ConfigurationError, expected


def spell(text: str, task: Task) -> tuple[int, ...]:
    """Return the token ids of `text`, without special tokens.

    Raises:
        ConfigurationError: if the task has no tokenizer, or its tokenizer cannot spell the text.
    """
    tokenizer = task.tokenizer
    if tokenizer is None:
        raise ConfigurationError(
            f"The data set {task.name} has no tokenizer, so that no word can be inserted into it."
        )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids or tokenizer.unk_token_id in ids:
        raise ConfigurationError(
            expected(
                "trigger",
                f"words that the tokenizer of {task.name} knows",
                text,
                "Choose other words, or a larger data.vocab_size.",
            )
        )
    return tuple(int(token) for token in ids)
