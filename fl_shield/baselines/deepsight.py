"""DeepSight (Rieger et al., NDSS 2022): what the last layer was trained for.

* Normalised energy (NEUP): share of the squared movement of each output neuron,
  E_c = |Δb_c| + Σ_h |ΔW_c,h|, NEUP_c = E_c² / Σ E²: which labels a client trained on.
* Threshold exceedings (TE): number of classes with NEUP_c ≥ max(0.01, 1/p) · max NEUP; few
  exceedings mean homogeneous data, as an attacker's are.
* Division differences (DDif): mean over noise inputs of softmax(W_i)_c / softmax(G)_c.

DeepSight clusters these; the graded statistics are distances to the cohort's coordinate-wise
median, and the negated TE.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fl_shield.activations.layout import fastest_layout, in_layout
from fl_shield.baselines.observed import Floats, Observed
from fl_shield.baselines.protocol import finite
from fl_shield.probes.probe_set import Inputs

NUM_NOISE = 256
"""Noise inputs of the statistic. The paper takes 20 000; the mean over a few hundred has settled,
and a statistic has to be quick. The strategy takes the paper's number."""

BATCH = 128
"""Noise inputs that go through a model at a time: a thousand small images leave the cache, and take
three times as long."""

TINY = 1e-30
"""Keeps the division of probabilities finite."""


def neups(weight: NDArray[np.floating], bias: NDArray[np.floating]) -> Floats:
    """Return the normalised energies `(clients, classes)`; a row sums to 1, or is 0.

    Args:
        weight: `(clients, classes, features)` update of the last layer's weight.
        bias: `(clients, classes)` update of its bias.
    """
    energy = np.abs(bias.astype(np.float64)) + np.abs(weight.astype(np.float64)).sum(axis=2)
    square = energy**2
    total = square.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(square, total, out=np.zeros_like(square), where=total > 0))


def exceedings(neup: Floats) -> Floats:
    """Return the threshold exceedings TE `(clients,)`, from 1 to the number of classes."""
    share = max(0.01, 1.0 / max(neup.shape[1], 1))
    limit = share * neup.max(axis=1, keepdims=True, initial=0.0)
    return np.asarray((neup >= limit).sum(axis=1), dtype=np.float64)


def ddifs(observed: Observed, seed: int, num_noise: int = NUM_NOISE) -> Floats:
    """Return the division differences `(clients, classes)` on one draw of noise inputs."""
    total = np.zeros((len(observed), observed.reference_logits_width()))
    generator = torch.Generator().manual_seed(seed)
    layout = fastest_layout(observed.model, observed.probes.inputs)
    done = 0
    while done < num_noise:
        size = min(BATCH, num_noise - done)
        noise = in_layout(noise_inputs(observed.probes.inputs, size, generator), layout)
        base = _probabilities(observed.read(observed.cohort.reference, noise)[0]) + TINY
        for row, client in zip(total, observed.cohort.clients, strict=True):
            ratio = _probabilities(observed.read(client.load(), noise)[0]) / base
            row += ratio.sum(dim=0).cpu().numpy()
        done += size
    return finite(total / num_noise)


def noise_inputs(probes: Inputs, count: int, generator: torch.Generator) -> Inputs:
    """Return `count` noise inputs like the probes: U[0, 1] pixels, or tokens drawn from theirs.

    Texts are a case that the paper leaves open; their tokens are drawn from all those of the
    probes, with the lengths (masks) of probes drawn alike.
    """
    if isinstance(probes, Tensor):
        return _noise(probes, count, generator)
    rows = torch.randint(len(next(iter(probes.values()))), (count,), generator=generator)
    return {
        name: tensor[rows.to(tensor.device)]
        if name.endswith("mask")
        else _noise(tensor, count, generator)
        for name, tensor in _as_dict(probes).items()
    }


def distance_to_centre(rows: Floats) -> Floats:
    """Return Euclidean distances `(clients,)` to the coordinate-wise median of the rows."""
    if not len(rows):
        return np.zeros(0)
    return np.asarray(np.linalg.norm(rows - np.median(rows, axis=0), axis=1))


class DeepSightDDif:
    """Distance of a client's DDif to the cohort's median DDif."""

    name = "deepsight_ddif"

    def score(self, observed: Observed) -> Floats:
        """Return the distances `(clients,)`."""
        return finite(distance_to_centre(ddifs(observed, observed.seed)))


class DeepSightNEUP:
    """Distance of a client's NEUP to the cohort's median NEUP."""

    name = "deepsight_neup"

    def score(self, observed: Observed) -> Floats:
        """Return the distances `(clients,)`."""
        return finite(distance_to_centre(neups(*observed.head())))


class DeepSightTE:
    """Negated threshold exceedings: few classes above the threshold are suspicious."""

    name = "deepsight_te"

    def score(self, observed: Observed) -> Floats:
        """Return the negated counts `(clients,)`."""
        return finite(-exceedings(neups(*observed.head())))


def _probabilities(logits: Tensor) -> Tensor:
    return torch.softmax(torch.nan_to_num(logits.double()), dim=1)


def _noise(tensor: Tensor, count: int, generator: torch.Generator) -> Tensor:
    shape = (count, *tensor.shape[1:])
    if tensor.is_floating_point():
        return torch.rand(shape, generator=generator).to(tensor)
    flat = tensor.flatten()
    return flat[torch.randint(len(flat), shape, generator=generator).to(flat.device)]


def _as_dict(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(inputs)
