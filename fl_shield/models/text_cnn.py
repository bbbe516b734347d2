"""TextCNN (Kim, 2014): parallel convolutions over word embeddings, pooled over time."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from fl_shield.data.task import TaskSpec
from fl_shield.models.check import check_text


class TextCnn(nn.Module):
    """Convolutions of several widths, maximum over time.

    Args:
        spec: The task.
        embedding: Size of a token's vector.
        filters: Filters of each width.
        widths: Tokens that a filter spans.
        dropout: Share of penultimate features dropped in training; 0.5 in the paper.
    """

    def __init__(
        self,
        spec: TaskSpec,
        embedding: int = 64,
        filters: int = 64,
        widths: tuple[int, ...] = (3, 4, 5),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_text("text_cnn", spec, max(widths))
        self.embedding = nn.Embedding(spec.vocab_size, embedding, padding_idx=spec.pad_id)
        self.convolutions = nn.ModuleList(nn.Conv1d(embedding, filters, width) for width in widths)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(filters * len(widths), spec.num_classes)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Return logits `(batch, classes)` of `(batch, length)` token ids."""
        vectors = self.embedding(token_ids).transpose(1, 2)
        pooled = [conv(vectors).relu().amax(dim=2) for conv in self.convolutions]
        return cast("Tensor", self.head(self.dropout(torch.cat(pooled, dim=1))))
