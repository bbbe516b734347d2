"""Spans of a text."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fl_shield.scanning.parts_of_images import Box
from fl_shield.scanning.strip import replace_words

FINER = 4
"""How many times shorter than a coarse span a fine one is: single words to short phrases."""


class TextParts:
    """Spans of words: three of half the text, and shorter ones in each of them.

    Args:
        pad_id: Padding token id; texts are padded on the right.
        special_tokens: Other ids that are no words; they stay where they are, at the ends.
    """

    def __init__(self, pad_id: int, special_tokens: tuple[int, ...] = ()) -> None:
        self.pad_id = pad_id
        self._marks = torch.tensor(sorted({pad_id, *special_tokens}))

    def coarse(self, own: Tensor) -> list[Box]:
        """Return up to three overlapping spans, `own` being `(length,)` token ids."""
        words = len(self._words(own))
        return _spans(0, words, math.ceil(words / 2))

    def fine(self, own: Tensor, box: Box) -> list[Box]:
        """Return overlapping spans of a span."""
        del own
        first, _, words, _ = box
        return _spans(first, words, math.ceil(words / FINER))

    def paste(self, own: Tensor, box: Box, partners: Tensor) -> Tensor:
        """Return the partners `(partners, length)` with a span of the text put in at its place."""
        first, _, count, _ = box
        span = self._words(own)[first : first + count]
        rows = []
        for partner in partners:
            words = self._words(partner)
            place = min(first, len(words))
            rows.append(self._spell(partner, torch.cat([words[:place], span, words[place:]])))
        return torch.stack(rows)

    def erase(self, own: Tensor, box: Box, partners: Tensor) -> Tensor:
        """Return the text without a span; the partners, being no part of it, only count."""
        first, _, count, _ = box
        words = self._words(own)
        kept = torch.cat([words[:first], words[first + count :]])
        return self._spell(own, kept).expand(len(partners), -1)

    def mix(self, own: Tensor, partners: Tensor, generator: torch.Generator) -> Tensor:
        """Return the text with half of its words replaced by the partners' (STRIP)."""
        return replace_words(own.expand_as(partners), partners, 0.5, self.pad_id, generator)

    def bands(self, own: Tensor, partners: Tensor) -> dict[str, Tensor]:
        """Return nothing: a text has no detail apart from its words."""
        del own, partners
        return {}

    def _words(self, text: Tensor) -> Tensor:
        return text[~torch.isin(text, self._marks.to(text))]

    def _spell(self, like: Tensor, words: Tensor) -> Tensor:
        """Return words between the marks that a text begins and ends with, cut to its length."""
        is_mark = torch.isin(like, self._marks.to(like)) & (like != self.pad_id)
        marks = like[is_mark]
        opens = bool(len(marks)) and bool(is_mark[0])
        head, tail = (marks[:1], marks[1:]) if opens else (marks[:0], marks)
        room = max(0, len(like) - len(marks))
        spelled = torch.full_like(like, self.pad_id)
        row = torch.cat([head, words[:room], tail])
        spelled[: len(row)] = row
        return spelled


def _spans(first: int, words: int, length: int) -> list[Box]:
    """Return spans of a length that overlap by half, within `words` words from `first` on."""
    length = max(1, min(length, words))
    stride = max(1, length // 2)
    starts = [*range(0, max(words - length, 0), stride), max(words - length, 0)]
    return [(first + start, 0, length, 1) for start in sorted(set(starts))]
