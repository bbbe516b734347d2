"""Slope descriptors (text only): towards which change of the input an update turns the classes.

ΔJ_c(x) is the slope of the centred logit of class c by the embedded tokens, averaged over the
positions, at the clean sample x, under the client's weights minus under the global ones; D_c its
mean over the samples, E_c that minus its median over the clients.

| name | formula | why |
|---|---|---|
| `slope_size` | log of max over classes of ‖E_c‖ over the root mean square of the global slopes, plus 0.01 | a new direction to be pushed in |
| `slope_focus` | max over classes of ‖D_c‖² over the mean of ‖ΔJ_c(x)‖² | the same direction whatever the sample |
| `slope_peak` | log of max over classes of the largest component of D_c over their root mean square | a few features count |
| `slope_peer` | largest cosine of E, all classes, with another client's | colluding attackers train on one trigger |
| `slope_twin` | largest cosine of any E_c with that of the same class of another client | the same, whatever the other classes do |
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fl_shield.descriptors.excess import EPSILON, nearest_peer


@dataclass(frozen=True)
class Slopes:
    """What is kept of the slopes of a client.

    Attributes:
        turned: `(classes, features)` D.
        focus: `(classes,)` share of the energy of ΔJ that D has.
        peak: `(classes,)` largest component of D, over their root mean square.
    """

    turned: Tensor
    focus: Tensor
    peak: Tensor


def keep_slopes(client: Tensor, reference: Tensor) -> Slopes:
    """Return what is kept, from `(classes, samples, features)` slopes of two models."""
    change = (client - reference).double().nan_to_num(0.0, 0.0, 0.0)
    turned = change.mean(dim=1)
    energy = change.square().sum(dim=2).mean(dim=1)
    size = turned.square().mean(dim=1).sqrt()
    return Slopes(
        turned,
        turned.square().sum(dim=1) / (energy + EPSILON**2),
        turned.abs().amax(dim=1) / (size + EPSILON**2),
    )


def describe_slopes(kept: list[Slopes], unit: float) -> dict[str, Tensor]:
    """Return name to `(clients,)` values.

    Args:
        kept: Of every client.
        unit: Root mean square norm of the global model's slopes.
    """
    turned = torch.stack([slopes.turned for slopes in kept])
    excess = turned - turned.median(dim=0).values
    size = excess.norm(dim=2).amax(dim=1) / (unit + EPSILON)
    return {
        "slope_size": torch.log(size + 0.01),
        "slope_focus": torch.stack([slopes.focus.amax() for slopes in kept]),
        "slope_peak": torch.log(torch.stack([slopes.peak.amax() for slopes in kept]) + EPSILON),
        "slope_peer": nearest_peer(excess.flatten(1)),
        "slope_twin": torch.stack([nearest_peer(e) for e in excess.unbind(dim=1)]).amax(dim=0),
    }


def unit_of(reference: Tensor) -> float:
    """Return the root mean square norm of `(classes, samples, features)` slopes."""
    return float(reference.double().square().sum(dim=2).mean().sqrt())
