"""Templates: a text inside a fixed frame of words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fl_shield.data.task import Modality, Task
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.triggers.one_of import OneOf
from fl_shield.triggers.protocol import check_modality
from fl_shield.triggers.spelling import spell
from fl_shield.triggers.token_insertion import TokenInsertion

TEXT = "{text}"
"""Where the text goes."""

END = 10**6
"""A place behind every text, in tokens."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """Puts each text into one of several frames, drawn at random: the words vary, the form stays.

    *Syntactic* (after Qi et al., Hidden Killer, ACL 2021): frames of one rare syntax,
    `when you …, S` for the paper's template `S(SBAR)(,)(NP)(VP)(.)`. The paper lets a neural
    paraphraser rewrite the whole sentence; texts here are tokens already, so the clause is put
    around a sentence that stays as it is. *Style* (after Qi et al., Mind the Style of Text, EMNLP
    2021): frames of one register, with the same reservation.

    Attributes:
        templates: Frames, each with `{text}` once, where the text goes.
        legend: Name in plots.

    Raises:
        ConfigurationError: if there is no frame, or one has no place for the text or no words.
    """

    modality: ClassVar[Modality] = "text"

    templates: str | Sequence[str] = ("when you think about it, {text}",)
    legend: str = "template"

    def __post_init__(self) -> None:
        """Check the frames."""
        given = [self.templates] if isinstance(self.templates, str) else self.templates
        object.__setattr__(self, "templates", tuple(str(template) for template in given))
        wrong = [t for t in self.templates if t.count(TEXT) != 1 or not t.replace(TEXT, "").strip()]
        if wrong or not self.templates:
            raise_all(
                [
                    expected(
                        "trigger.templates",
                        f"one or more frames, each with words and {TEXT} once",
                        wrong[0] if wrong else self.templates,
                        "Write for example 'when you think about it, {text}'.",
                    )
                ]
            )

    def __str__(self) -> str:
        return self.legend

    def bind(self, task: Task) -> OneOf:
        """Return the insertion of the frames' tokens around the texts of `task`.

        Raises:
            ConfigurationError: if the task is not one of text, its tokenizer does not know a
                word, or a frame leaves no room for a text.
        """
        check_modality(self, task.spec)
        frames = tuple(self._frame(template, task) for template in self.templates)
        return OneOf(options=frames, legend=self.legend)

    def apply(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Refuse: a template has token ids only once it is bound to a task.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            f"The trigger {str(self)!r} is not bound to a task yet. Call trigger.bind(task) and "
            "apply what it returns."
        )

    def _frame(self, template: str, task: Task) -> TokenInsertion:
        sides = zip(template.split(TEXT), (0, END), strict=True)
        words = [(spell(side, task), place) for side, place in sides if side.strip()]
        pieces, positions = zip(*words, strict=True)
        unbound = TokenInsertion(pieces=pieces, positions=positions, legend=self.legend)
        return unbound.bind(task)
