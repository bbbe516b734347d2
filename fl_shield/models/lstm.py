"""A bidirectional LSTM over word embeddings."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from fl_shield.data.task import TaskSpec
from fl_shield.models.check import check_text


class BiLstm(nn.Module):
    """One bidirectional layer, averaged over the tokens that are not padding.

    Args:
        spec: The task.
        embedding: Size of a token's vector.
        hidden: Units of each direction.
    """

    def __init__(self, spec: TaskSpec, embedding: int = 64, hidden: int = 64) -> None:
        super().__init__()
        check_text("lstm", spec)
        self.pad_id = spec.pad_id
        self.embedding = nn.Embedding(spec.vocab_size, embedding, padding_idx=spec.pad_id)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, spec.num_classes)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Return logits `(batch, classes)` of `(batch, length)` token ids."""
        states, _ = self.lstm(self.embedding(token_ids))
        real = (token_ids != self.pad_id).unsqueeze(2).to(states.dtype)
        mean = (states * real).sum(dim=1) / real.sum(dim=1).clamp_min(1.0)
        return cast("Tensor", self.head(mean))
