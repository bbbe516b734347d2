"""What a detector is trained for: to tell the clients of a round apart, and to know how sure it is.

Two parts of equal weight, averaged over the rounds of a batch:

- binary cross-entropy, in which the malicious and the benign clients of a round weigh one half each
  (a round of one kind weighs one half), so that scores are log-odds;
- the logistic ranking loss `softplus(−(s_malicious − s_benign))` over all pairs of a round (Burges
  et al., *Learning to rank using gradient descent*, 2005), as clients are compared within a round.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus


def detection_loss(log_odds: Tensor, malicious: Tensor, present: Tensor) -> Tensor:
    """Return the loss of a batch, a scalar.

    Args:
        log_odds: `(rounds, clients)`.
        malicious: `(rounds, clients)` truth, 0 or 1.
        present: `(rounds, clients)` bool, False where a client is padding.
    """
    positive, negative = (malicious > 0.5) & present, (malicious <= 0.5) & present
    weight = _half(positive) + _half(negative)
    entropy = binary_cross_entropy_with_logits(log_odds, malicious, reduction="none")
    classified = (entropy * weight).sum(dim=1)
    pairs = (positive.unsqueeze(2) & negative.unsqueeze(1)).to(log_odds.dtype)
    margin = log_odds.unsqueeze(2) - log_odds.unsqueeze(1)
    ranked = (softplus(-margin) * pairs).sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp_min(1.0)
    return (classified + ranked).mean()


def _half(chosen: Tensor) -> Tensor:
    count = chosen.sum(dim=1, keepdim=True).clamp_min(1)
    return torch.where(chosen, 0.5 / count, torch.zeros_like(count, dtype=torch.float32))
