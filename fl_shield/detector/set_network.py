"""The set network: judges the clients of a round together, whatever their order and number."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

HEADS = 4
"""Heads of the self-attention."""


class SetNetwork(nn.Module):
    """Permutation-equivariant log-odds over the clients of a round.

    An encoder looks at each client; self-attention compares each with all others, as accomplices
    are like each other; the cohort is summed up by the mean of the embeddings, by attention
    pooling, and by its size; a head judges each client in the light of that summary (Zaheer et
    al., Deep Sets, 2017, section 3.1, with the attention block and pooling of Lee et al., Set
    Transformer, 2019, section 3.1, less its second feed-forward layer).

    Args:
        num_features: Features of a client.
        hidden: Width of the layers, a multiple of `heads`.
        pools: Attention-pooled summaries.
        dropout: Share of units dropped in training.
        heads: Heads of the self-attention; 0 for a network without it.
        reads: `(num_features,)`, 1 for the features that an expert looks at and 0 for all others;
            None for a network that reads all.
    """

    def __init__(
        self,
        num_features: int,
        hidden: int = 64,
        pools: int = 2,
        dropout: float = 0.15,
        heads: int = HEADS,
        reads: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.reads: Tensor | None
        self.register_buffer("reads", reads)
        self.num_features, self.hidden, self.pools, self.heads = num_features, hidden, pools, heads
        self.encoder = nn.Sequential(
            nn.Linear(num_features, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.GELU(),
        )
        if heads:
            self.normed = nn.LayerNorm(hidden)
            self.others = nn.MultiheadAttention(hidden, heads, batch_first=True)
            nn.init.zeros_(self.others.out_proj.weight)  # training begins without the others
        self.attention = nn.Linear(hidden, pools)
        self.head = nn.Sequential(
            nn.Linear((2 + pools) * hidden + 1, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )

    def forward(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """Return log-odds `(rounds, clients)`.

        Args:
            features: `(rounds, clients, features)`.
            present: `(rounds, clients)` bool, False where a client is padding; its log-odds mean
                nothing. None when all are present.
        """
        embedded = self.embed(features)
        compared = self.compare(embedded, embedded, present)
        return self.judge(compared, self.summarise(compared, present))

    @property
    def is_expert(self) -> bool:
        """Whether the network looks at some of the features only."""
        return self.reads is not None

    def embed(self, features: Tensor) -> Tensor:
        """Return clients as the network sees each by itself, `(rounds, clients, hidden)`."""
        embedded: Tensor = self.encoder(features if self.reads is None else features * self.reads)
        return embedded

    def compare(self, embedded: Tensor, cohort: Tensor, present: Tensor | None = None) -> Tensor:
        """Return embedded clients, each with what it learns of the cohort, of the same shape.

        Args:
            embedded: `(rounds, clients, hidden)`, from `embed`.
            cohort: Whom they are compared with, likewise.
            present: As for `forward`, of the cohort.
        """
        if not self.heads:
            return embedded
        # A round of padding only attends to it: a softmax over nothing is NaN.
        padding = None if present is None else ~present & present.any(dim=1, keepdim=True)
        known = self.normed(cohort)
        seen, _ = self.others(
            self.normed(embedded), known, known, key_padding_mask=padding, need_weights=False
        )
        return embedded + cast("Tensor", seen)

    def summarise(self, embedded: Tensor, present: Tensor | None = None) -> Tensor:
        """Return the summary of each round, `(rounds, (1 + pools) · hidden + 1)`.

        Args:
            embedded: `(rounds, clients, hidden)`, from `compare`.
            present: As for `forward`.
        """
        if present is None:
            present = torch.ones(embedded.shape[:2], dtype=torch.bool, device=embedded.device)
        weight = present.to(embedded.dtype).unsqueeze(2)
        count = weight.sum(dim=1)
        mean = (embedded * weight).sum(dim=1) / count.clamp_min(1.0)
        attention = self.attention(embedded).masked_fill(~present.unsqueeze(2), -1e9).softmax(dim=1)
        pooled = torch.einsum("bnk,bnh->bkh", attention, embedded).flatten(1)
        return torch.cat([mean, pooled, count.clamp_min(1.0).log()], dim=1)

    def judge(self, embedded: Tensor, summary: Tensor) -> Tensor:
        """Return log-odds `(rounds, clients)` of clients from `compare`, given a summary."""
        spread = summary.unsqueeze(1).expand(-1, embedded.shape[1], -1)
        odds: Tensor = self.head(torch.cat([embedded, spread], dim=2)).squeeze(2)
        return odds
