"""Views of the probe set: the same model is looked at through clean and through noise inputs.

A *view* is a batch the model can be called with. Clean probes show what an update does to the
task; noise probes (uniform over the range, or over the tokens, of the clean ones) show what it
does away from the data, where the label skew of honest clients has less to say.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fl_shield.probes.probe_set import Inputs, ProbeSet

CLEAN, NOISE = "clean", "noise"


def build_views(probes: ProbeSet, seed: int) -> dict[str, Inputs]:
    """Return the views of a probe set by name; the same seed gives the same noise.

    Args:
        probes: The clean probe set.
        seed: Seed of the noise.

    Returns:
        `{"clean": …, "noise": …}`, each with as many samples as the probe set.
    """
    generator = torch.Generator().manual_seed(seed)
    noise: Inputs
    if isinstance(probes.inputs, Tensor):
        noise = _noise_like(probes.inputs, generator)
    else:
        noise = {
            name: tensor if name.endswith("mask") else _noise_like(tensor, generator)
            for name, tensor in probes.inputs.items()
        }
    return {CLEAN: probes.inputs, NOISE: noise}


def concatenate(views: Mapping[str, Inputs]) -> tuple[Inputs, dict[str, slice]]:
    """Return all views as one batch, and where each view lies in it.

    One forward pass over the joint batch costs less than one for each view.
    """
    slices: dict[str, slice] = {}
    start = 0
    for name, view in views.items():
        size = len(view) if isinstance(view, Tensor) else len(next(iter(view.values())))
        slices[name] = slice(start, start + size)
        start += size
    parts = list(views.values())
    if all(isinstance(part, Tensor) for part in parts):
        return torch.cat([part for part in parts if isinstance(part, Tensor)]), slices
    mappings = [part for part in parts if not isinstance(part, Tensor)]
    return {key: torch.cat([part[key] for part in mappings]) for key in mappings[0]}, slices


def _noise_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if tensor.is_floating_point():
        low, high = tensor.min(), tensor.max()
        return low + (high - low) * torch.rand(tensor.shape, generator=generator).to(tensor)
    # Padding, separators and other frequent tokens keep their places in the frequency, so that
    # random text has the lengths and the vocabulary of the clean text.
    order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
    return tensor.flatten()[order].reshape(tensor.shape)
