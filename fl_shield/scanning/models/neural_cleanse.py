"""Neural Cleanse: one class that is suspiciously easy to reach (Wang et al., S&P 2019).

For each class the smallest patch is searched that sends all clean images to it (section IV, eq. 3;
course page and slides in the same words). A backdoor's target class needs a much smaller one than
the others do: its mask is an outlier among the masks, measured by the median absolute deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fl_shield.activations.penultimate import call_model
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.scanning.models.base import (
    SuspicionOfModels,
    require_classes,
    require_images,
)
from fl_shield.scanning.models.masked import MaskedPatterns, keep_better
from fl_shield.scanning.protocol import Held

CONSISTENCY = 1.4826
"""MAD times this is the standard deviation of a normal sample (section IV-B)."""

MIN_IMAGES = 4


@dataclass(frozen=True, kw_only=True)
class TriggerSearch:
    """How triggers are synthesised; defaults are those of the authors' program, but for `steps`.

    Attributes:
        steps: Steps of Adam; each sees all images and all classes.
        samples: Clean images used, the first ones.
        learning_rate: Step size; betas are 0.5 and 0.9.
        success: Share of images that a trigger must send to its class.
        first_weight: First weight of the mask's size in the loss.
        multiplier: The weight grows by this after `patience` successful steps, and shrinks by
            its power 1.5 after as many others.
        patience: Steps in a row before the weight changes.
        seed: Seed of the first masks and patterns.

    Raises:
        ConfigurationError: if a setting is impossible.
    """

    steps: int = 200
    samples: int = 32
    learning_rate: float = 0.1
    success: float = 0.99
    first_weight: float = 1e-3
    multiplier: float = 2.0
    patience: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Check all settings at once."""
        problems = [
            expected(name, "1 or more", getattr(self, name))
            for name in ("steps", "samples", "patience")
            if getattr(self, name) < 1
        ]
        if not 0.0 < self.success <= 1.0:
            problems.append(expected("success", "above 0 and at most 1", self.success))
        if not self.multiplier > 1.0:
            problems.append(expected("multiplier", "above 1", self.multiplier))
        for name in ("learning_rate", "first_weight"):
            if not getattr(self, name) > 0:
                problems.append(expected(name, "above 0", getattr(self, name)))
        raise_all(problems)


@dataclass(frozen=True)
class Triggers:
    """A synthesised trigger for each class.

    Attributes:
        patterns: Masks and patterns, a problem a class.
        success: `(classes,)` share of the images that each sends to its class.
    """

    patterns: MaskedPatterns
    success: Tensor

    def anomaly(self) -> NDArray[np.float64]:
        """Return `(classes,)` anomaly indices of the masks' sizes (see `anomaly_indices`)."""
        return anomaly_indices(self.patterns.sizes().double().cpu().numpy())


def synthesise_triggers(
    model: nn.Module, images: Tensor, search: TriggerSearch | None = None
) -> Triggers:
    """Return the smallest trigger found for each class (section IV-A, eq. 2 and 3).

    Args:
        model: The suspect, in eval mode; its gradients are left alone.
        images: `(samples, channels, height, width)` clean images.
        search: How to search.
    """
    search = search or TriggerSearch()
    images = images[: search.samples]
    classes = call_model(model, images[:1]).shape[1]
    low, high = float(images.min()), float(images.max())
    generator = torch.Generator().manual_seed(search.seed)
    shape = images.shape[1:]
    raw_masks = torch.randn(classes, 1, *shape[1:], generator=generator).to(images)
    raw_patterns = torch.randn(classes, *shape, generator=generator).to(images)
    variables = [raw_masks.requires_grad_(), raw_patterns.requires_grad_()]
    optimiser = torch.optim.Adam(variables, lr=search.learning_rate, betas=(0.5, 0.9))
    targets = torch.arange(classes, device=images.device).repeat_interleave(len(images))
    weight = torch.full((classes,), search.first_weight, device=images.device)
    ups, downs = torch.zeros_like(weight), torch.zeros_like(weight)
    smallest = torch.full_like(weight, float("inf"))
    best = success = None
    for _ in range(search.steps):
        now = _bounded(raw_masks, raw_patterns, low, high)
        with torch.enable_grad():
            logits = call_model(model, now.on(images).flatten(0, 1))
            loss = functional.cross_entropy(logits, targets, reduction="none")
            each = loss.reshape(classes, -1).mean(dim=1) + weight * now.sizes()
            gradients = torch.autograd.grad(each.sum(), variables)
        with torch.no_grad():
            reached = (logits.argmax(dim=1) == targets).float().reshape(classes, -1).mean(dim=1)
            sizes, good = now.sizes(), reached >= search.success
            better = good & (sizes < smallest)
            smallest = torch.where(better, sizes, smallest)
            detached = MaskedPatterns(now.masks.detach(), now.patterns.detach())
            # Until a class succeeds its latest attempt is all there is.
            first = better | smallest.isinf()
            best = detached if best is None else keep_better(best, detached, first)
            success = reached if success is None else torch.where(first, reached, success)
            ups, downs = (ups + 1) * good, (downs + 1) * ~good
            grow, shrink = ups >= search.patience, downs >= search.patience
            weight = torch.where(grow, weight * search.multiplier, weight)
            weight = torch.where(shrink, weight / search.multiplier**1.5, weight)
            ups, downs = ups * ~grow, downs * ~shrink
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.grad = gradient
        optimiser.step()
    assert best is not None
    assert success is not None
    return Triggers(best, success)


def anomaly_indices(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each class's mask is below the median, in normalised MADs (section IV-B).

    Only small masks count: classes at or above the median get 0. Where all masks but a few agree
    to the last pixel, the MAD counts as a millionth of the median.

    >>> anomaly_indices(np.array([10.0, 12.0, 11.0, 13.0, 2.0])).round(2)
    array([0.67, 0.  , 0.  , 0.  , 6.07])
    """
    median = float(np.median(sizes))
    mad = CONSISTENCY * float(np.median(np.abs(sizes - median)))
    floor = max(1e-6 * median, 1e-12)
    below: NDArray[np.float64] = np.maximum(median - sizes, 0.0) / max(mad, floor)
    return below


class NeuralCleanse(SuspicionOfModels):
    """Scores a model by the largest anomaly index of its classes; the paper suspects above 2.

    Args:
        search: How triggers are synthesised.
        shadows: Clean models to train for the threshold; 0 takes the published one.
        false_alarms: Share of clean models that may be suspected, when there are shadows.
    """

    name: ClassVar[str] = "neural_cleanse"
    published: ClassVar[float] = 2.0

    def __init__(
        self,
        search: TriggerSearch | None = None,
        *,
        shadows: int = 0,
        false_alarms: float = 0.05,
    ) -> None:
        super().__init__(shadows=shadows, false_alarms=false_alarms)
        self.search = search or TriggerSearch()

    def __repr__(self) -> str:
        return f"NeuralCleanse({self.search!r}, shadows={self.shadows})"

    def _check(self, held: Held) -> None:
        require_images(held, self.name, MIN_IMAGES)
        require_classes(held, self.name)
        if held.spec.num_classes < 3:
            raise ConfigurationError(
                f"The scanner {self.name} looks for an outlier among the classes, which takes "
                f"three or more, got {held.spec.num_classes}. Choose mntd or meta_shield_model."
            )

    def _suspicion(self, model: nn.Module, held: Held) -> float:
        images = require_images(held, self.name)
        return float(synthesise_triggers(model, images, self.search).anomaly().max())


def _bounded(masks: Tensor, patterns: Tensor, low: float, high: float) -> MaskedPatterns:
    """Return masks in [0, 1] and patterns in [low, high], by tanh as in the authors' program."""
    with torch.enable_grad():
        span = (high - low) / 2
        return MaskedPatterns(masks.tanh() / 2 + 0.5, (patterns.tanh() + 1) * span + low)
