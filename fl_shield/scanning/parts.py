"""Parts of an input that can be carried over to another one, or taken away.

A trigger is a part: pasted into clean inputs it takes them along, and without it the input is a
clean one again. Both work for windows of an image and spans of a text, which is what makes the
descriptors of the two comparable.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from fl_shield.data.task import TaskSpec
from fl_shield.scanning.parts_of_images import Box, ImageParts
from fl_shield.scanning.parts_of_texts import TextParts


class Parts(Protocol):
    """What can be done with parts of one input and a few clean partners of the same shape."""

    def coarse(self, own: Tensor) -> list[Box]:
        """Return overlapping parts of about half of the input each way."""
        ...

    def fine(self, own: Tensor, box: Box) -> list[Box]:
        """Return overlapping parts of a coarse part, of about half of it each way."""
        ...

    def paste(self, own: Tensor, box: Box, partners: Tensor) -> Tensor:
        """Return the partners with a part of the input at its place."""
        ...

    def erase(self, own: Tensor, box: Box, partners: Tensor) -> Tensor:
        """Return the input without a part, once for each partner."""
        ...

    def mix(self, own: Tensor, partners: Tensor, generator: torch.Generator) -> Tensor:
        """Return the input and each partner, half and half."""
        ...

    def bands(self, own: Tensor, partners: Tensor) -> dict[str, Tensor]:
        """Return inputs that share the detail, or all but the detail, of this one, by name."""
        ...


def parts_for(spec: TaskSpec, word_tokens: tuple[int, ...] | None = None) -> Parts:
    """Return the parts of a task's inputs.

    Args:
        spec: Kind and shape of the task.
        word_tokens: For texts, the token ids that are words; None for all but padding.
    """
    if spec.modality == "image":
        return ImageParts()
    words = range(spec.vocab_size) if word_tokens is None else word_tokens
    return TextParts(spec.pad_id, tuple(set(range(spec.vocab_size)) - set(words)))
