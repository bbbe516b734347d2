"""What one input does to a model, in numbers that have no dimension.

The input's predicted class is `c`, its penultimate activations are `z`; `m` is the mean of the
clean samples' activations. A *view* is a batch of inputs made of it and of clean partners:

| view | what is run | count |
|---|---|---|
| `mix` | input and partner, half and half | partners |
| `coarse`, `fine` | partners with the part of the input that takes most of them to `c` | partners |
| `erased` | the input without that fine part | partners |
| `detail`, `doubled` | partners with the input's fine detail (images) | partners |
| `smooth`, `blurred` | the input with the partners' detail, and with none (images) | partners, 1 |

| statistic | formula, over the batch of a view |
|---|---|
| `kept` | mean probability of `c` |
| `gain` | `kept` minus the partners' own mean probability of `c` |
| `margin` | mean of (logit of `c` − highest other logit), in spreads of clean margins |
| `near` | mean cosine of (activation − `m`) with (`z` − `m`) |
| `pull` | mean of ⟨activation − partner's, `z` − partner's⟩ / ‖`z` − partner's‖² |
| `alike` | mean cosine between the (activation − `m`) of the batch |
| `entropy` | mean entropy of the predictions, as a share of that of a uniform one |
| `spread` | `kept` of the best part minus the mean `kept` of all parts, for `coarse` and `fine` |

Without a view: `confidence` (`margin` of the input itself), `peak` (cosine of its centred logits
with those that single `c` out), `norm` (log of ‖`z`‖ over the median clean one), `nearest` (least
distance of `z` to a clean sample's, over the median distance between those), `typical` (cosine of
`z` − `m` with the mean of the clean samples that are given `c`; 0 where there is none).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fl_shield.scanning.reading import Reading

TINY = 1e-9


@dataclass(frozen=True)
class Background:
    """What is known of the clean samples that an input is held against.

    Attributes:
        mean: `(features,)` mean of their activations.
        unit: Spread of the margins of their predictions, above 0.
        norm: Median norm of their activations, above 0.
        distance: Median distance between their activations, above 0.
        clean: The reading itself.
    """

    mean: Tensor
    unit: float
    norm: float
    distance: float
    clean: Reading

    @classmethod
    def of(cls, clean: Reading) -> Background:
        """Return the background of clean samples, two or more."""
        own = margins(clean.logits, clean.predicted)
        between = torch.pdist(clean.activations)
        return cls(
            clean.activations.mean(dim=0),
            max(float(own.abs().mean()), TINY),
            max(float(clean.activations.norm(dim=1).median()), TINY),
            max(float(between.median()), TINY),
            clean,
        )

    def without(self, row: int) -> Background:
        """Return the background of all clean samples but one."""
        kept = torch.arange(len(self.clean.logits)) != row
        return Background.of(Reading(self.clean.logits[kept], self.clean.activations[kept]))


def margins(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the logit of a class minus the highest other logit, `(samples,)`.

    Args:
        logits: `(samples, classes)`.
        classes: `(samples,)`.
    """
    own = logits.gather(1, classes[:, None])[:, 0]
    others = logits.scatter(1, classes[:, None], -math.inf).amax(dim=1)
    return own - others


def describe_itself(own: Reading, background: Background) -> dict[str, float]:
    """Return the statistics without a view.

    Args:
        own: Reading of the one input.
        background: The clean samples.
    """
    logits, activation = own.logits[0], own.activations[0]
    chosen = int(own.predicted[0])
    centred = logits - logits.mean()
    alone = torch.full_like(logits, -1.0 / len(logits))
    alone[chosen] += 1.0
    clean = background.clean
    same = clean.activations[clean.predicted == chosen]
    typical = (
        float(cosine_similarity(activation - background.mean, same.mean(0) - background.mean, 0))
        if len(same)
        else 0.0
    )
    apart = (clean.activations - activation).norm(dim=1)
    return {
        "confidence": float(margins(own.logits, own.predicted)[0]) / background.unit,
        "peak": float(cosine_similarity(centred, alone, 0)),
        "norm": math.log((float(activation.norm()) + TINY) / background.norm),
        "nearest": float(apart.min()) / background.distance,
        "typical": typical,
    }


def describe_view(
    view: str, seen: Reading, own: Reading, partners: Reading, background: Background
) -> dict[str, float]:
    """Return the statistics of a view, named `statistic@view`.

    Args:
        view: Its name.
        seen: Reading of the batch, a row for each partner, or one row.
        own: Reading of the one input.
        partners: Reading of the partners as they are.
        background: The clean samples.
    """
    chosen = own.predicted
    kept = seen.probabilities[:, chosen[0]]
    away = seen.activations - background.mean
    own_away = own.activations - background.mean
    found = {
        "kept": float(kept.mean()),
        "gain": float(kept.mean() - partners.probabilities[:, chosen[0]].mean()),
        "margin": float(margins(seen.logits, chosen.expand(len(seen.logits))).mean())
        / background.unit,
        "near": float(cosine_similarity(away, own_away).mean()),
        "entropy": float(_entropy(seen.probabilities).mean()),
    }
    if len(seen.logits) == len(partners.logits) > 1:
        way = own.activations - partners.activations
        step = seen.activations - partners.activations
        along = (step * way).sum(dim=1) / way.square().sum(dim=1).clamp_min(TINY)
        found["pull"] = float(along.clamp(-10.0, 10.0).mean())
        unit = away / away.norm(dim=1, keepdim=True).clamp_min(TINY)
        count = len(unit)
        total = float((unit @ unit.T).sum() - unit.square().sum())
        found["alike"] = total / (count * (count - 1))
    return {f"{name}@{view}": value for name, value in found.items()}


def _entropy(probabilities: Tensor) -> Tensor:
    nats: Tensor = torch.special.xlogy(probabilities, probabilities).sum(dim=1)
    return -nats / math.log(probabilities.shape[1])
