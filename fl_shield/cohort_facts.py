"""What the inspector knows of a round, and of a client, while it looks at them."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from fl_shield.candidate_triggers import CandidateTriggers
from fl_shield.descriptors.places import Reading
from fl_shield.token_survey import TokenFacts


@dataclass(frozen=True)
class Asked:
    """Candidate triggers, and what the global model answers to them."""

    triggers: CandidateTriggers
    own: Tensor


@dataclass(frozen=True)
class CohortFacts:
    """What the first passes learn: norms, mean direction, row motion of text; what to ask where."""

    norms: list[float]
    origin: float
    median_norm: float
    direction_sum: dict[str, Tensor]
    tokens: TokenFacts | None
    asked: dict[str, list[Asked]]
    slopes: Tensor | None


@dataclass
class Seen:
    """What was seen of one client, before it is described."""

    geometry: dict[str, float]
    readings: list[Reading] = field(default_factory=list)
    tokens: dict[str, float] = field(default_factory=dict)
    guided: dict[str, tuple[Reading, Reading]] = field(default_factory=dict)
