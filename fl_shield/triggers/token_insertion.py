"""Token ids inserted into texts: what every text trigger becomes once it is bound to a task."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fl_shield.data.task import Modality, Task
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.triggers.protocol import check_modality, seeded

Position = int | Literal["random"]
"""Number of tokens of the text that stay in front, or a new random place in each text."""


@dataclass(frozen=True, kw_only=True)
class TokenInsertion:
    """Inserts pieces of one or more tokens each; the text moves back to make room.

    A leading classification token stays first and a closing separator stays last, where the text
    has them. Padding is used up first; then the end of the text falls off. Of pieces at the same
    place, the first comes first.

    Attributes:
        pieces: Token ids of each piece, kept together.
        positions: For each piece, the number of tokens of the original text in front of it (the
            classification token counts), at most the whole text; `"random"` for a new place in
            each text.
        pad_id: Padding token id; texts are padded on the right.
        cls_id: Classification token id, None if there is none.
        sep_id: Separator token id, None if there is none.
        legend: Name in plots.

    Raises:
        ConfigurationError: if there is nothing to insert, or a position is negative.
    """

    modality: ClassVar[Modality] = "text"

    pieces: tuple[tuple[int, ...], ...]
    positions: tuple[Position, ...]
    pad_id: int = 0
    cls_id: int | None = None
    sep_id: int | None = None
    legend: str = "inserted tokens"

    def __post_init__(self) -> None:
        """Check what does not depend on the task."""
        problems = []
        if not self.pieces or not all(self.pieces):
            problems.append(expected("trigger.pieces", "one or more tokens each", self.pieces))
        if len(self.positions) != len(self.pieces):
            problems.append(
                expected("trigger.positions", f"{len(self.pieces)} in number", self.positions)
            )
        for position in self.positions:
            problems += check_position(position)
        raise_all(problems)

    def __str__(self) -> str:
        return self.legend

    def __len__(self) -> int:
        return sum(len(piece) for piece in self.pieces)

    def bind(self, task: Task) -> TokenInsertion:
        """Return the trigger with the special tokens of `task`.

        Raises:
            ConfigurationError: if the task is not one of text, the tokens are not in its
                vocabulary, or they do not fit into its texts.
        """
        check_modality(self, task.spec)
        (length,) = task.spec.input_shape
        room = length - 2  # classification token and separator
        problems = []
        if len(self) > room:
            problems.append(
                f"Expected `trigger` to be at most {room} tokens, to fit into texts of {length}, "
                f"got the {len(self)} tokens of {self}. "
                "Choose fewer words, or a larger data.max_length."
            )
        strange = [t for piece in self.pieces for t in piece if not 0 <= t < task.spec.vocab_size]
        if strange:
            problems.append(
                expected("trigger", f"token ids below {task.spec.vocab_size}", strange[0])
            )
        tokenizer = task.tokenizer
        if tokenizer is not None and tokenizer.padding_side != "right":
            problems.append(expected("tokenizer.padding_side", "'right'", tokenizer.padding_side))
        raise_all(problems)
        return replace(
            self,
            pad_id=task.spec.pad_id,
            cls_id=None if tokenizer is None else tokenizer.cls_token_id,
            sep_id=None if tokenizer is None else tokenizer.sep_token_id,
        )

    def apply(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the texts (`(samples, length)` token ids) with the pieces inserted.

        Raises:
            ConfigurationError: if the texts are not longer than what is inserted.
        """
        samples, length = inputs.shape
        if len(self) + 2 > length:
            raise ConfigurationError(
                expected("inputs", f"texts of at least {len(self) + 2} tokens", length)
            )
        if not samples:
            return inputs.clone()
        sizes = (inputs != self.pad_id).sum(dim=1)  # (samples,)
        closed = self._closed(inputs, sizes)
        places = self._places(inputs, sizes, closed, seeded(generator))  # (samples, tokens)
        tokens = torch.tensor([t for piece in self.pieces for t in piece]).to(inputs)

        # Sorting by place puts each inserted token in front of the original one it displaces.
        # Inserted tokens stand first in the row, and the sort is stable: their order is kept.
        original = torch.arange(length, device=inputs.device).expand(samples, -1)
        order = torch.cat([places, original], dim=1).argsort(dim=1, stable=True)
        row = torch.cat([tokens.expand(samples, -1), inputs], dim=1)
        triggered = row.gather(1, order)[:, :length]
        if self.sep_id is not None:  # it may have fallen off the end
            overfull = closed & (sizes + len(self) > length)
            triggered[overfull, -1] = self.sep_id
        return triggered

    def _closed(self, inputs: Tensor, sizes: Tensor) -> Tensor:
        """Return which texts end in a separator, `(samples,)` bool."""
        if self.sep_id is None:
            return torch.zeros_like(sizes, dtype=torch.bool)
        last = inputs.gather(1, (sizes - 1).clamp(min=0)[:, None])[:, 0]
        return last == self.sep_id

    def _places(
        self, inputs: Tensor, sizes: Tensor, closed: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the index of the original token that each inserted one displaces."""
        length = inputs.shape[1]
        low = torch.zeros_like(sizes)
        if self.cls_id is not None:
            low = (inputs[:, 0] == self.cls_id).long()
        high = torch.minimum(sizes, torch.full_like(sizes, length - len(self))) - closed.long()
        high = torch.maximum(low, high)  # a text of special tokens only
        places = []
        for piece, position in zip(self.pieces, self.positions, strict=True):
            if position == "random":
                chance = torch.rand(len(inputs), generator=generator, device=generator.device)
                place = low + (chance.to(inputs.device) * (high - low + 1)).long()
            else:
                place = torch.full_like(sizes, position)
            place = torch.minimum(torch.maximum(place, low), high)
            places.append(place[:, None].expand(-1, len(piece)))
        return torch.cat(places, dim=1)


def check_position(position: Position) -> list[str]:
    """Return what is wrong with a position: nothing, or one sentence."""
    if position == "random" or (isinstance(position, int) and position >= 0):
        return []
    return [expected("trigger.position", "0 or more tokens, or 'random'", position)]
