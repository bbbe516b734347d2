"""What each class of an image model looks like as the target of a backdoor, without dimensions.

The classes of one model stand to each other as the clients of a round do: most are honest, and one
may be the target. Number, scale and order of neurons, classes and logits do not matter.

`K` classes, `n` clean images `x`, `o(k)` those whose class is not k, `D` the median distance of two
clean images, `m_k(x)` the logit of k less the best other one, `s` the median `|m|` of the model's
own answers, `h` penultimate activations. `δ` is one perturbation for all images, found by
normalised gradient ascent of `log p_k` in a ball of radius `r · D`, and judged on images that it
was not made for; r is in the column's name.

| column | formula | why |
|---|---|---|
| `patch` | log of the share of pixels of the smallest patch that moves all to k | Neural Cleanse |
| `patch_success` | share of images moved by it | the search may fail |
| `success@r` | share of `o(k)` that `x + δ` moves to k | faint triggers over the whole image |
| `margin@r` | mean of `m_k(x + δ) / s` over `o(k)` | the same, where all or none succeed |
| `confidence@r` | mean of `log p_k(x + δ)` over `o(k)` | the same, at the model's own temperature |
| `direction@r` | `‖mean Δh‖ / mean ‖Δh‖` over `o(k)` | a backdoor is one direction |
| `agreement` | length of the mean of unit gradients of `log p_k` | one shortcut for all images |
| `pull` | log of `D / s` times the mean length of these gradients | a short way to k |
| `corner` | largest share of their mean in a window of a sixth of the side | triggers are small |
| `noise` | mean of `log p_k` over images of noise | what is drawn to k without any reason |
| `row` | log of the norm of k's row of the final layer, if that is linear | rows of targets grow |
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fl_shield.activations.penultimate import PenultimateReader, call_model
from fl_shield.errors import expected, raise_all
from fl_shield.scanning.models.neural_cleanse import TriggerSearch, synthesise_triggers

TINY = 1e-9


@dataclass(frozen=True, kw_only=True)
class ClassSearch:
    """How perturbations are searched.

    Attributes:
        images: Clean images that a perturbation is made for; as many others judge it.
        radii: Radii of the balls, as shares of the distance of two images.
        steps: Steps in each ball.
        patch: How the smallest patches are searched.
        noise: Images of noise.
        seed: Seed of the noise.

    Raises:
        ConfigurationError: if a setting is impossible.
    """

    images: int = 16
    radii: tuple[float, ...] = (0.1, 0.25)
    steps: int = 12
    patch: TriggerSearch = field(default_factory=lambda: TriggerSearch(steps=60, samples=16))
    noise: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        """Check all settings at once."""
        problems = [
            expected(name, "1 or more", getattr(self, name))
            for name in ("images", "steps", "noise")
            if getattr(self, name) < 1
        ]
        if not all(radius > 0 for radius in self.radii):
            problems.append(expected("radii", "above 0", self.radii))
        raise_all(problems)


def describe_classes(
    model: nn.Module, images: Tensor, labels: Tensor, final_layer: str, search: ClassSearch
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return the columns' names, and `(classes, columns)` of a model.

    Args:
        model: The suspect, in eval mode, without gradients.
        images: `(samples, channels, height, width)` clean images, four or more.
        labels: `(samples,)` their classes.
        final_layer: Name of the final classification layer.
        search: How to search.
    """
    half = min(search.images, len(images) // 2)
    made_for, judged = images[:half], images[half : 2 * half]
    subject = _Subject(model, made_for, labels[:half], judged, labels[half : 2 * half], final_layer)
    columns = {**_patches(subject, search)}
    gradient = subject.slopes(torch.zeros_like(images[:1]).expand(subject.classes, -1, -1, -1))
    columns |= _gradients(subject, gradient)
    for radius in search.radii:
        columns |= _perturbed(subject, radius, search.steps)
    columns |= _noise(subject, search)
    columns |= _rows(model, final_layer, subject.classes)
    table = torch.stack(list(columns.values()), dim=1).double().cpu().numpy()
    return tuple(columns), table


class _Subject:
    """A model with the images that perturbations are made for, and those that judge them."""

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        judges: Tensor,
        judge_labels: Tensor,
        final_layer: str,
    ) -> None:
        self.model, self.images, self.labels = model, images, labels
        self.judges, self.judge_labels = judges, judge_labels
        self.reader = PenultimateReader(model, final_layer)
        self.bounds = (float(images.min()), float(images.max()))
        logits, self.hidden = self.reader.read(None, judges)
        self.classes = logits.shape[1]
        self.scale = float(_lead(logits, logits.argmax(dim=1)).abs().median()) + TINY
        apart = torch.cdist(images.flatten(1), images.flatten(1))
        self.distance = float(apart[apart > 0].median()) if bool((apart > 0).any()) else 1.0

    def shifted(self, images: Tensor, by: Tensor) -> Tensor:
        """Return `(classes * samples, …)`: every image with the perturbation of every class."""
        return (images[None] + by[:, None]).clamp(*self.bounds).flatten(0, 1)

    def slopes(self, by: Tensor) -> Tensor:
        """Return the gradients of `log p_k` at perturbed images, `(classes, samples, …)`."""
        inputs = self.shifted(self.images, by).requires_grad_()
        targets = torch.arange(self.classes, device=inputs.device)
        targets = targets.repeat_interleave(len(self.images))
        with torch.enable_grad():
            loss = functional.cross_entropy(
                call_model(self.model, inputs), targets, reduction="sum"
            )
            (gradient,) = torch.autograd.grad(-loss, inputs)
        return gradient.reshape(self.classes, len(self.images), *self.images.shape[1:])

    def others(self, labels: Tensor) -> Tensor:
        """Return `(classes, samples)`: 1 where an image is of another class, else 0."""
        own = labels[None] == torch.arange(self.classes, device=labels.device)[:, None]
        return (~own).float()


def _patches(subject: _Subject, search: ClassSearch) -> dict[str, Tensor]:
    found = synthesise_triggers(subject.model, subject.images, search.patch)
    pixels = subject.images.shape[-1] * subject.images.shape[-2]
    size = (found.patterns.sizes() / pixels).clamp_min(1e-5).log()
    return {"patch": size.detach(), "patch_success": found.success.detach()}


def _gradients(subject: _Subject, gradient: Tensor) -> dict[str, Tensor]:
    weight = subject.others(subject.labels)
    count = weight.sum(dim=1).clamp_min(1.0)
    # The gradient of log p_k vanishes where the model is sure: each image counts the same.
    unit = functional.normalize(gradient.flatten(2), dim=2, eps=1e-30)
    mean = (unit * weight[..., None]).sum(dim=1) / count[:, None]
    length = (gradient.flatten(2).norm(dim=2) * weight).sum(dim=1) / count
    side = max(2, round(subject.images.shape[-1] / 6))
    energy = mean.reshape(subject.classes, *subject.images.shape[1:]).abs().sum(1, keepdim=True)
    window = functional.avg_pool2d(energy, side, stride=1).flatten(1).amax(dim=1) * side * side
    return {
        "agreement": mean.norm(dim=1),
        "pull": (length * subject.distance / subject.scale + TINY).log(),
        "corner": window / (energy.flatten(1).sum(dim=1) + TINY),
    }


def _perturbed(subject: _Subject, radius: float, steps: int) -> dict[str, Tensor]:
    limit = radius * subject.distance
    by = torch.zeros(subject.classes, *subject.images.shape[1:], device=subject.images.device)
    weight = subject.others(subject.labels)
    for _ in range(steps):
        slopes = subject.slopes(by)
        unit = functional.normalize(slopes.flatten(2), dim=2, eps=1e-30) * weight[..., None]
        ahead = functional.normalize(unit.sum(dim=1), dim=1, eps=1e-30).reshape(by.shape)
        by = by + 2.5 * limit / steps * ahead
        length = by.flatten(1).norm(dim=1).clamp_min(TINY)
        by = by * (limit / length).clamp_max(1.0)[:, None, None, None]
    logits, hidden = subject.reader.read(None, subject.shifted(subject.judges, by))
    classes, count = subject.classes, len(subject.judges)
    weight = subject.others(subject.judge_labels)
    total = weight.sum(dim=1).clamp_min(1.0)
    targets = torch.arange(classes, device=logits.device).repeat_interleave(count)
    lead = _lead(logits, targets).reshape(classes, count)
    sure = logits.log_softmax(dim=1).gather(1, targets[:, None]).reshape(classes, count)
    moved = hidden.reshape(classes, count, -1) - subject.hidden[None]
    mean = (moved * weight[..., None]).sum(dim=1) / total[:, None]
    length = (moved.norm(dim=2) * weight).sum(dim=1) / total

    def average(values: Tensor) -> Tensor:
        return (values * weight).sum(dim=1) / total

    return {
        f"success@{radius:g}": average((lead > 0).float()),
        f"margin@{radius:g}": average(lead) / subject.scale,
        f"confidence@{radius:g}": average(sure.clamp_min(-20.0)),
        f"direction@{radius:g}": mean.norm(dim=1) / (length + TINY),
    }


def _noise(subject: _Subject, search: ClassSearch) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(search.seed)
    low, high = subject.bounds
    noise = torch.rand(search.noise, *subject.images.shape[1:], generator=generator)
    with torch.no_grad():
        logits = call_model(subject.model, (low + (high - low) * noise).to(subject.images))
    return {"noise": logits.log_softmax(dim=1).clamp_min(-20.0).mean(dim=0)}


def _rows(model: nn.Module, final_layer: str, classes: int) -> dict[str, Tensor]:
    weight = getattr(model.get_submodule(final_layer), "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2 or len(weight) != classes:
        return {}
    return {"row": (weight.detach().norm(dim=1) + TINY).log()}


def _lead(logits: Tensor, labels: Tensor) -> Tensor:
    """Return by how much the logit of `labels` is above the best of the others."""
    own = logits.gather(1, labels[:, None])[:, 0]
    mask = functional.one_hot(labels, logits.shape[1]).bool()
    return own - logits.masked_fill(mask, -torch.inf).amax(dim=1)
