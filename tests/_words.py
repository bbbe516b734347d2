"""A bag-of-words classifier, small enough to plant a trigger by hand."""

from __future__ import annotations

from torch import Tensor, nn

VOCABULARY = 40


class Words(nn.Module):
    """Mean of the embeddings, and one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embedding(ids).mean(dim=1))
        return logits
