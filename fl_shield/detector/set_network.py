"""The set network: judges the clients of a round together, whatever their order and number."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SetNetwork(nn.Module):
    """Permutation-equivariant log-odds over the clients of a round.

    An encoder looks at each client; the cohort is summed up by the mean of the embeddings, by
    attention pooling, and by its size; a head judges each client in the light of that summary
    (Zaheer et al., Deep Sets, 2017, section 3.1, with the attention pooling of Lee et al., 2019).

    Args:
        num_features: Features of a client.
        hidden: Width of the layers.
        pools: Attention-pooled summaries.
        dropout: Share of units dropped in training.
    """

    def __init__(
        self, num_features: int, hidden: int = 64, pools: int = 2, dropout: float = 0.15
    ) -> None:
        super().__init__()
        self.num_features, self.hidden, self.pools = num_features, hidden, pools
        self.encoder = nn.Sequential(
            nn.Linear(num_features, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.GELU(),
        )
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
        embedded = self.encoder(features)
        return self.judge(embedded, self.summarise(embedded, present))

    def summarise(self, embedded: Tensor, present: Tensor | None = None) -> Tensor:
        """Return the summary of each round, `(rounds, (1 + pools) · hidden + 1)`.

        Args:
            embedded: `(rounds, clients, hidden)`, from `encoder`.
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
        """Return log-odds `(rounds, clients)` of embedded clients, in the light of a summary."""
        spread = summary.unsqueeze(1).expand(-1, embedded.shape[1], -1)
        odds: Tensor = self.head(torch.cat([embedded, spread], dim=2)).squeeze(2)
        return odds
