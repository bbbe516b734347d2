"""What several networks say of a round together: those that read all, and experts on triggers.

Networks that read every descriptor weigh one against another, and a client that answers to a
trigger as nobody else does may still look, by all the rest, more honest than most. Experts read
nothing but the answers to triggers that were searched for, and of texts, where a search finds the
phrases of a backdoor themselves, they are heard. Where they are sure they overrule the others,

    log-odds = log(exp(a) + exp(s · (b − m))),

with a the mean log-odds of the networks that read all and b that of the experts. Below the margin m
the second term hardly counts: most attackers are not found by their answers alone, and experts that
have nothing to say acquit nobody. They learn from squares on images, too, which makes them better
at phrases, but are not heard of images: there honest updates answer as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from fl_shield.descriptors.plan import matches
from fl_shield.detector.features import CHANNELS, PRESENT
from fl_shield.detector.set_network import SetNetwork

HEARD_WITH = ("*/searched",)
"""Experts are heard on rounds that have such a column."""

MARGIN = 1.3
"""Log-odds of the experts that weigh as much as even odds of the others."""

SHARPNESS = 3.0
"""How fast the experts' word gains weight above `MARGIN`, and loses it below."""

STEPS = 8
"""Points on the way from the median client to a client, at which contributions are measured."""

LogOdds = Callable[[SetNetwork], Tensor]
"""Returns a network's log-odds."""


def readers_of(networks: Sequence[SetNetwork]) -> list[SetNetwork]:
    """Return the networks that read everything."""
    return [network for network in networks if not network.is_expert]


def heard(networks: Sequence[SetNetwork], columns: Iterable[str]) -> list[SetNetwork]:
    """Return the networks that judge a round: all, or those that read everything.

    Args:
        networks: One or more; if all of them are experts, they judge every round.
        columns: Descriptors of the round.
    """
    readers = readers_of(networks)
    is_searched = any(matches(name, HEARD_WITH) for name in columns)
    return list(networks) if is_searched or not readers else readers


def joint_log_odds(networks: Sequence[SetNetwork], log_odds: LogOdds) -> Tensor:
    """Return what the networks say together, of the shape of one network's log-odds.

    Args:
        networks: One or more, those that are `heard`; if all are experts, their mean counts.
        log_odds: What each says.
    """
    readers = readers_of(networks)
    experts = [network for network in networks if network.is_expert]
    if not readers or not experts:
        return _mean(networks, log_odds)
    found = SHARPNESS * (_mean(experts, log_odds) - MARGIN)
    return torch.logaddexp(_mean(readers, log_odds), found)


def integrated_gradients(networks: Sequence[SetNetwork], features: Tensor) -> Tensor:
    """Return `(clients, features)`: each client's own features' parts in its log-odds.

    Sundararajan, Taly and Yan, *Axiomatic attribution for deep networks*, 2017, equation 1, from a
    client at the cohort's median to the client itself. What the networks see of the cohort is held
    fixed.

    Args:
        networks: As for `joint_log_odds`.
        features: `(1, clients, features)`.
    """
    with torch.no_grad():
        cohorts = [network.embed(features) for network in networks]
        seen = {
            id(network): (cohort, network.summarise(network.compare(cohort, cohort)))
            for network, cohort in zip(networks, cohorts, strict=True)
        }
    offset = features.clone()
    # The median client has the same columns: that they are there speaks against nobody.
    offset.view(*offset.shape[:2], CHANNELS, -1)[:, :, PRESENT] = 0.0
    share = (torch.arange(STEPS, dtype=features.dtype) + 0.5) / STEPS
    path = features - offset + share[:, None, None] * offset
    path.requires_grad_(True)

    def on_the_way(network: SetNetwork) -> Tensor:
        cohort, summary = seen[id(network)]
        compared = network.compare(network.embed(path), cohort.expand(STEPS, -1, -1))
        return network.judge(compared, summary.expand(STEPS, -1))

    with torch.enable_grad():
        odds = joint_log_odds(networks, on_the_way)
        (gradient,) = torch.autograd.grad(odds.sum(), path)
    return gradient.mean(dim=0) * offset[0]


def _mean(networks: Sequence[SetNetwork], log_odds: LogOdds) -> Tensor:
    return torch.stack([log_odds(network) for network in networks]).mean(dim=0)
