"""What a detector is trained for: to tell the clients of a round apart, and to know how sure it is.

Two parts of equal weight, averaged over the rounds of a batch, and a third of half their weight:

- binary cross-entropy, in which the malicious and the benign clients of a round weigh one half each
  (a round of one kind weighs one half), so that scores are log-odds;
- the logistic ranking loss `softplus(−(s_malicious − s_benign))` over all pairs of a round (Burges
  et al., *Learning to rank using gradient descent*, 2005), as clients are compared within a round;
- the same over all pairs of a malicious client of the batch and a benign one among the tenth of
  those with the highest scores, whatever the round (a partial area under the curve: Agarwal, *The
  infinite push*, 2011). A threshold is one for all rounds, and the honest clients that it has to
  clear are the odd ones of rounds without attackers, who stand out as attackers do elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

TOP_SHARE = 0.1
"""Share of the benign clients of a batch, those of highest scores, that attackers are to exceed."""

TOP_WEIGHT = 0.5


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
    top = _highest(log_odds[negative])
    pushed = softplus(top.unsqueeze(0) - log_odds[positive].unsqueeze(1))
    apart = pushed.mean() if pushed.numel() else log_odds.new_zeros(())
    return (classified + ranked).mean() + TOP_WEIGHT * apart


def _highest(benign: Tensor) -> Tensor:
    """Return the highest `TOP_SHARE` of some scores, one at least, none of none."""
    count = min(max(round(TOP_SHARE * len(benign)), 1), len(benign))
    return benign.topk(count).values


def _half(chosen: Tensor) -> Tensor:
    count = chosen.sum(dim=1, keepdim=True).clamp_min(1)
    return torch.where(chosen, 0.5 / count, torch.zeros_like(count, dtype=torch.float32))
