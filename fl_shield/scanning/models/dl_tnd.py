"""DL-TND, the data-limited TrojanNet detector (Wang et al., ECCV 2020, section 4; slides).

With a backdoor there is a shortcut to its target class. A perturbation of a single image towards
that class takes the shortcut, and so does one perturbation for all images: the model answers both
alike. For each class the answers to the two are compared; a few images of each class are enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_shield.activations.penultimate import call_model
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.scanning.models.base import SuspicionOfModels, require_classes, require_images
from fl_shield.scanning.models.masked import MaskedPatterns, keep_better
from fl_shield.scanning.protocol import Held, require_labels

MARGIN = 15.0
"""Logits by which an attack may win before its loss stops falling (the authors' program)."""

ENOUGH = 0.7
"""Share of the images that a universal perturbation has to win (the authors' program)."""

FIRST_MASK = 0.1
"""Masks begin almost transparent, with white patterns."""

AT_ONCE = 512
"""Perturbations of single images that are searched together; memory sets the limit."""

QUANTILE = 0.25
"""A class is as suspicious as this quantile of its images' similarities."""


@dataclass(frozen=True, kw_only=True)
class PerturbationSearch:
    """How perturbations are searched.

    Attributes:
        steps: Steps of each search.
        searches: Weights of the mask's size that are tried for universal perturbations, by
            bisection; per-image ones have the first.
        learning_rate: Step size of Adam; masks also shrink by it times the weight in every step.
        weight: First weight of the mask's size, in (0, 1).
        per_class: Images of each class.

    Raises:
        ConfigurationError: if a setting is impossible.
    """

    steps: int = 60
    searches: int = 4
    learning_rate: float = 0.1
    weight: float = 0.5
    per_class: int = 1

    def __post_init__(self) -> None:
        """Check all settings at once."""
        problems = [
            expected(name, "1 or more", getattr(self, name))
            for name in ("steps", "searches", "per_class")
            if getattr(self, name) < 1
        ]
        if not 0.0 < self.weight < 1.0:
            problems.append(expected("weight", "between 0 and 1", self.weight))
        if not self.learning_rate > 0:
            problems.append(expected("learning_rate", "above 0", self.learning_rate))
        raise_all(problems)


def universal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return `(problems, samples)` losses of one perturbation a class (eq. 3).

    Images of other classes are to lose their label, whatever they get instead; images of the
    class itself are to keep it: a trigger does not send its target class away.

    Args:
        logits: `(problems, samples, classes)`; problem k is that of class k.
        labels: `(samples,)` true classes.
    """
    own = labels[None] == torch.arange(len(logits), device=labels.device)[:, None]
    lead = _lead(logits, labels.expand(len(logits), -1))
    return torch.where(own, -lead, lead).clamp_min(-MARGIN)


def targeted_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the losses of perturbations of single images towards `targets` (eq. 5).

    Args:
        logits: `(problems, samples, classes)`.
        targets: `(problems, samples)` classes to reach.
    """
    return (-_lead(logits, targets)).clamp_min(-MARGIN)


def similarities(
    model: nn.Module, images: Tensor, labels: Tensor, search: PerturbationSearch | None = None
) -> Tensor:
    """Return `(classes, samples)` cosines of the logits under both kinds of perturbation.

    Images of a class itself count for nothing there: NaN.

    Args:
        model: The suspect, in eval mode.
        images: `(samples, channels, height, width)` clean images.
        labels: `(samples,)` their classes.
        search: How to search.
    """
    search = search or PerturbationSearch()
    classes = call_model(model, images[:1]).shape[1]
    universal = _universal(model, images, labels, classes, search)
    answers = call_model(model, universal.on(images).flatten(0, 1))
    answers = answers.reshape(classes, len(images), classes)
    cosines = torch.full((classes, len(images)), torch.nan)
    pairs = (labels[None] != torch.arange(classes, device=labels.device)[:, None]).nonzero()
    for chosen in torch.split(pairs, AT_ONCE):
        targets, rows = chosen.unbind(dim=1)
        single = _per_image(model, images[rows], targets, search)
        own = call_model(model, single.each_on_its_own(images[rows]))
        found = functional.cosine_similarity(answers[targets, rows], own, dim=1)
        cosines[targets.cpu(), rows.cpu()] = found.detach().cpu()
    return cosines


class DataLimitedTnd(SuspicionOfModels):
    """Scores a model by the class of highest similarity; the authors suspect above 0.75.

    Args:
        search: How perturbations are searched.
        shadows: Clean models to train for the threshold; 0 takes the published one.
        false_alarms: Share of clean models that may be suspected, when there are shadows.
    """

    name: ClassVar[str] = "dl_tnd"
    published: ClassVar[float] = 0.75

    def __init__(
        self,
        search: PerturbationSearch | None = None,
        *,
        shadows: int = 0,
        false_alarms: float = 0.05,
    ) -> None:
        super().__init__(shadows=shadows, false_alarms=false_alarms)
        self.search = search or PerturbationSearch()

    def __repr__(self) -> str:
        return f"DataLimitedTnd({self.search!r}, shadows={self.shadows})"

    def _check(self, held: Held) -> None:
        require_images(held, self.name)
        labels = require_labels(held, self.name)
        require_classes(held, self.name)
        missing = sorted(set(range(held.spec.num_classes)) - set(labels.tolist()))
        if missing:
            raise ConfigurationError(
                f"The scanner {self.name} needs a clean sample of each class, and there is none of "
                f"class {missing[0]}."
            )

    def _suspicion(self, model: nn.Module, held: Held) -> float:
        images, labels = require_images(held, self.name), require_labels(held, self.name)
        chosen = torch.cat(
            [
                (labels == label).nonzero().flatten()[: self.search.per_class]
                for label in range(held.spec.num_classes)
            ]
        )
        cosines = similarities(model, images[chosen], labels[chosen], self.search)
        return float(cosines.nanquantile(QUANTILE, dim=1).max())


def _lead(logits: Tensor, labels: Tensor) -> Tensor:
    """Return by how much the logit of `labels` is above the best of the others."""
    own = logits.gather(-1, labels[..., None])[..., 0]
    mask = functional.one_hot(labels, logits.shape[-1]).bool()
    return own - logits.masked_fill(mask, -torch.inf).amax(dim=-1)


def _universal(
    model: nn.Module, images: Tensor, labels: Tensor, classes: int, search: PerturbationSearch
) -> MaskedPatterns:
    """Return the smallest perturbation of each class that wins on `ENOUGH` of the images."""
    weight = torch.full((classes,), search.weight, device=images.device)
    low, high = torch.zeros_like(weight), torch.ones_like(weight)
    best: MaskedPatterns | None = None
    smallest = torch.full_like(weight, torch.inf)
    start = MaskedPatterns(
        torch.full((classes, 1, *images.shape[2:]), FIRST_MASK, device=images.device),
        torch.full((classes, *images.shape[1:]), float(images.max()), device=images.device),
    )

    def answers(patterns: MaskedPatterns) -> Tensor:
        logits = call_model(model, patterns.on(images).flatten(0, 1))
        return universal_loss(logits.reshape(classes, len(images), classes), labels)

    for _ in range(search.searches):
        found, losses = _descend(answers, start, _range(images), weight, search)
        won = (losses <= 0).float().mean(dim=1) >= ENOUGH
        better = (won & (found.sizes() < smallest)) | smallest.isinf()
        best = found if best is None else keep_better(best, found, better)
        smallest = torch.where(won & better, found.sizes(), smallest)
        low, high = torch.where(won, weight, low), torch.where(won, high, weight)
        weight = (low + high) / 2
    assert best is not None
    return best


def _per_image(
    model: nn.Module, images: Tensor, targets: Tensor, search: PerturbationSearch
) -> MaskedPatterns:
    """Return a perturbation of each image towards its class of `targets` (`(samples,)`)."""
    start = MaskedPatterns(
        torch.full((len(images), 1, *images.shape[2:]), FIRST_MASK, device=images.device),
        torch.full_like(images, float(images.max())),
    )
    weight = torch.full((len(images),), search.weight, device=images.device)

    def answers(patterns: MaskedPatterns) -> Tensor:
        logits = call_model(model, patterns.each_on_its_own(images))
        return targeted_loss(logits[:, None], targets[:, None])

    return _descend(answers, start, _range(images), weight, search)[0]


def _range(images: Tensor) -> tuple[float, float]:
    return float(images.min()), float(images.max())


def _descend(
    losses_of: Callable[[MaskedPatterns], Tensor],
    start: MaskedPatterns,
    bounds: tuple[float, float],
    weight: Tensor,
    search: PerturbationSearch,
) -> tuple[MaskedPatterns, Tensor]:
    """Return the perturbations after proximal gradient steps, and their last losses.

    Masks take a step of Adam and then shrink towards 0 by the proximal operator of their L1 norm;
    masks and patterns stay in their bounds.

    Args:
        losses_of: Losses `(problems, samples)` of perturbations.
        start: First masks and patterns.
        bounds: Range of the images.
        weight: `(problems,)` weights of the mask's size.
        search: How to search.
    """
    masks, patterns = start.masks.clone(), start.patterns.clone()
    variables = [masks.requires_grad_(), patterns.requires_grad_()]
    optimiser = torch.optim.Adam(variables, lr=search.learning_rate)
    shrink = search.learning_rate * weight[:, None, None, None]
    losses = torch.empty(0)
    for _ in range(search.steps):
        with torch.enable_grad():
            losses = losses_of(MaskedPatterns(masks, patterns))
            gradients = torch.autograd.grad(losses.sum(), variables)
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.grad = gradient
        optimiser.step()
        with torch.no_grad():
            masks.copy_((masks - shrink).clamp(0.0, 1.0))
            patterns.clamp_(*bounds)
    found = MaskedPatterns(masks.detach(), patterns.detach())
    with torch.no_grad():
        return found, losses_of(found)
