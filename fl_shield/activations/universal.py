"""Universal perturbations of the global model: what it would already obey, class by class.

A backdoor that has settled in the global model is invisible on clean probes: attackers merely keep
it alive, honest clients slowly unlearn it. A perturbation that sends all clean samples to one class
(Moosavi-Dezfooli et al., CVPR 2017) comes close to the trigger if there is one, and shows which
updates strengthen it. One search a round, on the global model only; its price does not grow with
the number of clients.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fl_shield.activations.penultimate import logits_under

STEPS = 6
SIZE = 0.12
"""Root mean square of a perturbation, as a share of the images' range."""

MAX_CLASSES = 20


def universal_perturbations(
    model: nn.Module, state: Mapping[str, Tensor], images: Tensor, num_classes: int
) -> Tensor:
    """Return `(classes, channels, height, width)` perturbations of the same size.

    Normalised gradient ascent on the mean log-probability of each class over all images at once.

    Args:
        model: The model, in eval mode.
        state: Weights to use.
        images: `(samples, channels, height, width)` clean images.
        num_classes: Classes to search for, at most `MAX_CLASSES`.
    """
    classes = min(num_classes, MAX_CLASSES)
    samples = len(images)
    low, high = images.min(), images.max()
    radius = float(SIZE * (high - low)) * images[0].numel() ** 0.5
    delta = torch.zeros(classes, *images.shape[1:], device=images.device)
    weights = {name: tensor.detach() for name, tensor in state.items()}
    target = torch.arange(classes, device=images.device).repeat_interleave(samples)
    for _ in range(STEPS):
        delta = delta.detach().requires_grad_()
        with torch.enable_grad():
            logits = logits_under(model, weights, perturbed(images, delta)).log_softmax(dim=1)
            objective = logits.gather(1, target[:, None]).sum()
            (slope,) = torch.autograd.grad(objective, delta)
        moved = delta.detach() + 0.4 * radius * _unit(slope)
        norm = moved.flatten(1).norm(dim=1).clamp_min(1e-12)
        shrink = (radius / norm).clamp_max(1.0)
        delta = moved * shrink[:, None, None, None]
    return delta.detach()


def perturbed(images: Tensor, perturbations: Tensor) -> Tensor:
    """Return `(perturbations · samples, …)` images in their own range, perturbation by turn."""
    low, high = images.min(), images.max()
    moved = images[None] + perturbations[:, None]
    return moved.clamp(float(low), float(high)).flatten(0, 1)


def _unit(slope: Tensor) -> Tensor:
    norm = slope.flatten(1).norm(dim=1).clamp_min(1e-12)
    unit: Tensor = slope / norm[:, None, None, None]
    return unit
