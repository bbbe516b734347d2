"""DF-TND, the data-free TrojanNet detector (Wang et al., ECCV 2020, section 5; slides).

A backdoor shows in neurons that can be driven unusually high, even from noise. Starting at random
images, masked perturbations drive the penultimate neurons up; the class whose logit rises with them
is the target class, if the rise is large. No clean sample takes part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fl_shield.activations.penultimate import call_model, find_final_layer
from fl_shield.errors import expected, raise_all
from fl_shield.scanning.models.base import SuspicionOfModels, require_images
from fl_shield.scanning.models.masked import MaskedPatterns
from fl_shield.scanning.protocol import Held


@dataclass(frozen=True, kw_only=True)
class ActivationSearch:
    """How activations are maximised; defaults are the authors', but for `steps`.

    Attributes:
        images: Random images to start from.
        steps: Steps of projected gradient ascent.
        learning_rate: Length of a step of masks and patterns, as a share of their range.
        weight: Weight of the mask's size.
        neuron_rate: Step size of the weights of the neurons.
        seed: Seed of the images.

    Raises:
        ConfigurationError: if a setting is impossible.
    """

    images: int = 10
    steps: int = 100
    learning_rate: float = 0.1
    weight: float = 1e-3
    neuron_rate: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Check all settings at once."""
        problems = [
            expected(name, "1 or more", getattr(self, name))
            for name in ("images", "steps")
            if getattr(self, name) < 1
        ]
        for name in ("learning_rate", "neuron_rate"):
            if not getattr(self, name) > 0:
                problems.append(expected(name, "above 0", getattr(self, name)))
        if not self.weight >= 0:
            problems.append(expected("weight", "0 or more", self.weight))
        raise_all(problems)


def simplex_projection(values: Tensor) -> Tensor:
    """Return the nearest points of the probability simplex, row by row.

    Duchi et al., *Efficient projections onto the l1-ball*, ICML 2008, figure 1.

    Args:
        values: `(rows, features)`.

    >>> simplex_projection(torch.tensor([[0.5, 0.5], [2.0, 0.0], [0.6, 0.8]]))
    tensor([[0.5000, 0.5000],
            [1.0000, 0.0000],
            [0.4000, 0.6000]])
    """
    ordered = values.sort(dim=1, descending=True).values
    count = torch.arange(1, values.shape[1] + 1, dtype=values.dtype, device=values.device)
    excess = (ordered.cumsum(dim=1) - 1.0) / count
    last = (ordered > excess).sum(dim=1, keepdim=True) - 1
    return (values - excess.gather(1, last)).clamp_min(0.0)


def logit_rise(
    model: nn.Module,
    final_layer: str,
    shape: tuple[int, ...],
    bounds: tuple[float, float] = (0.0, 1.0),
    search: ActivationSearch | None = None,
) -> Tensor:
    """Return `(classes,)` mean rises of the logits, L_k of section 5.

    Args:
        model: The suspect, in eval mode.
        final_layer: Name of its final classification layer.
        shape: `(channels, height, width)` of its images.
        bounds: Range of its images.
        search: How activations are maximised.
    """
    search = search or ActivationSearch()
    low, high = bounds
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(search.seed)
    noise = torch.rand(search.images, *shape, generator=generator)
    images = (low + (high - low) * noise).to(device)
    masks = torch.full((search.images, 1, *shape[1:]), 0.5, device=device)
    patterns = low + (high - low) * torch.rand(search.images, *shape, generator=generator)
    patterns = patterns.to(device)
    neurons: Tensor | None = None
    seen: list[Tensor] = []

    def remember(_module: nn.Module, args: Any, kwargs: Any) -> None:
        seen.append(args[0] if args else next(iter(kwargs.values())))

    hook = model.get_submodule(final_layer).register_forward_pre_hook(remember, with_kwargs=True)
    try:
        with torch.no_grad():
            before = call_model(model, images)
        for _ in range(search.steps):
            seen.clear()
            masks.requires_grad_()
            patterns.requires_grad_()
            with torch.enable_grad():
                call_model(model, MaskedPatterns(masks, patterns).each_on_its_own(images))
                hidden = seen[-1].flatten(1)
                if neurons is None:
                    neurons = torch.full_like(hidden, 1.0 / hidden.shape[1]).detach()
                size = masks.abs().sum()
                objective = (neurons * hidden).sum() - search.weight * size
                slopes = torch.autograd.grad(objective, [masks, patterns])
            with torch.no_grad():
                step = search.learning_rate
                masks = (masks + step * slopes[0].sign()).clamp(0.0, 1.0)
                patterns = patterns + step * (high - low) * slopes[1].sign()
                patterns = patterns.clamp(low, high)
                neurons = simplex_projection(neurons + search.neuron_rate * hidden)
        with torch.no_grad():
            after = call_model(model, MaskedPatterns(masks, patterns).each_on_its_own(images))
    finally:
        hook.remove()
    return (after - before).mean(dim=0).detach()


class DataFreeTnd(SuspicionOfModels):
    """Scores a model by the largest rise of a logit; the authors suspect above 100.

    That threshold was chosen for a ResNet-50 and grows with the logits of a model: for others,
    take one from shadows.

    Args:
        search: How activations are maximised.
        shadows: Clean models to train for the threshold; 0 takes the published one.
        false_alarms: Share of clean models that may be suspected, when there are shadows.
    """

    name: ClassVar[str] = "df_tnd"
    published: ClassVar[float] = 100.0

    def __init__(
        self,
        search: ActivationSearch | None = None,
        *,
        shadows: int = 0,
        false_alarms: float = 0.05,
    ) -> None:
        super().__init__(shadows=shadows, false_alarms=false_alarms)
        self.search = search or ActivationSearch()

    def __repr__(self) -> str:
        return f"DataFreeTnd({self.search!r}, shadows={self.shadows})"

    def _check(self, held: Held) -> None:
        require_images(held, self.name)

    def _suspicion(self, model: nn.Module, held: Held) -> float:
        images = require_images(held, self.name)
        layer = find_final_layer(model, images[:1], held.final_layer)
        bounds = (float(images.min()), float(images.max()))
        return float(logit_rise(model, layer, tuple(images.shape[1:]), bounds, self.search).max())
