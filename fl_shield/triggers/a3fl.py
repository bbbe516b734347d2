"""A3FL: a patch whose pixels are optimised against the global model of the round."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_shield.data.task import Modality, Task
from fl_shield.errors import expected, raise_all
from fl_shield.triggers.patch import Patch
from fl_shield.triggers.pixel_box import PixelBox
from fl_shield.triggers.pixels import is_length, pixels


@dataclass(frozen=True, kw_only=True)
class A3fl:
    """An adversarially adaptive patch (Zhang et al., A3FL, NeurIPS 2023, section 4).

    The patch minimises `CE(x + patch, wanted; G) + λ · CE(x + patch, wanted; G')` by steps along
    the sign of the gradient. `G` is the global model; `G'` the same after training on triggered
    inputs with their *true* labels, as if the server were to unlearn the backdoor; `λ` is `balance`
    times the cosine similarity of their parameters. A patch that works on both outlives rounds of
    averaging with honest updates.

    The optimisation begins anew in every round, from a patch of one brightness, so that a round
    depends on the model that was sent out and on nothing else; the authors' program goes on from
    the patch of the round before. A step takes one batch (theirs a pass over all data), and the
    defaults are cheaper than theirs (200 passes, `G'` renewed by five epochs after each).

    Attributes:
        size: Side of the patch: pixels if an integer, share of the image's shorter side if a float
            below 1; 5 of 32 pixels in the authors' program.
        position: `(row, column)` of its upper left pixel.
        start: Brightness that the optimisation begins with, in [0, 1].
        steps: Steps of the patch; 0 leaves it as it begins.
        rate: Change of a pixel in one step.
        batch_size: Samples in a step.
        balance: Weight of the adapted model's loss; 0 does without that model.
        adapt_every: Steps until the adapted model is made anew from the global one.
        adapt_steps: SGD steps that make it.
        adapt_rate: Their learning rate.

    Raises:
        ConfigurationError: if a setting is impossible whatever the task.
    """

    modality: ClassVar[Modality] = "image"

    size: int | float = 0.16
    position: tuple[int, int] = (2, 2)
    start: float = 0.5
    steps: int = 100
    rate: float = 0.02
    batch_size: int = 64
    balance: float = 0.01
    adapt_every: int = 20
    adapt_steps: int = 10
    adapt_rate: float = 0.01

    def __post_init__(self) -> None:
        """Check what does not depend on the task."""
        object.__setattr__(self, "position", tuple(int(p) for p in self.position))
        problems = []
        if not is_length(self.size):
            problems.append(
                expected(
                    "trigger.size",
                    "a number of pixels, or a share of the image between 0 and 1",
                    self.size,
                )
            )
        if len(self.position) != 2 or min(self.position) < 0:
            problems.append(
                expected("trigger.position", "a row and a column, both 0 or more", self.position)
            )
        if not 0 <= self.start <= 1:
            problems.append(expected("trigger.start", "within [0, 1]", self.start))
        for name, least in (("steps", 0), ("batch_size", 1), ("adapt_every", 1)):
            if getattr(self, name) < least:
                problems.append(
                    expected(f"trigger.{name}", f"{least} or more", getattr(self, name))
                )
        for name in ("balance", "adapt_steps"):
            if not getattr(self, name) >= 0:
                problems.append(expected(f"trigger.{name}", "0 or more", getattr(self, name)))
        for name in ("rate", "adapt_rate"):
            if not getattr(self, name) > 0:
                problems.append(expected(f"trigger.{name}", "above 0", getattr(self, name)))
        raise_all(problems)

    def __str__(self) -> str:
        size = f"{self.size:.0%}" if isinstance(self.size, float) else f"{self.size}x{self.size}"
        return f"A3FL patch {size}"

    def bind(self, task: Task) -> A3fl:
        """Check that the patch lies inside the images of `task` and return this trigger.

        Raises:
            ConfigurationError: if it does not, or the task is not one of images.
        """
        self._flat().bind(task)
        return self

    def apply(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a copy of `inputs` with the patch that the optimisation begins with."""
        return self._flat().apply(inputs, generator)

    def optimise(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        wanted: Tensor,
        generator: torch.Generator,
    ) -> PixelBox:
        """Return the patch optimised against `model`, which is left as it is.

        Args:
            model: The global model as it was sent out.
            inputs: `(samples, channels, height, width)` clean images of the attackers.
            labels: `(samples,)` their true classes.
            wanted: `(samples,)` the classes they should get once triggered.
            generator: Chooses the batches.
        """
        device = next(model.parameters()).device
        reference = copy.deepcopy(model).eval().requires_grad_(False)
        channels, height, width = inputs.shape[1:]
        side = pixels(self.size, min(height, width))
        patch = torch.full((channels, side, side), self.start, dtype=inputs.dtype, device=device)
        adapted, weight = reference, 0.0
        for step in range(self.steps if len(inputs) else 0):
            if self.balance and step % self.adapt_every == 0:
                adapted = self._adapt(reference, patch, inputs, labels, generator)
                weight = self.balance * _similarity(reference, adapted)
            batch = _draw(len(inputs), self.batch_size, generator)
            classes = wanted[batch].to(device)
            patch.requires_grad_(True)
            shown = self._show(inputs[batch].to(device), patch)
            loss = functional.cross_entropy(reference(shown), classes)
            if weight:
                loss = loss + weight * functional.cross_entropy(adapted(shown), classes)
            (gradient,) = torch.autograd.grad(loss, patch)
            patch = (patch.detach() - self.rate * gradient.sign()).clamp(0, 1)
        values = tuple(tuple(tuple(row) for row in plane) for plane in patch.detach().tolist())
        top, left = self.position
        return PixelBox(values=values, top=top, left=left, legend=str(self))

    def _adapt(
        self,
        reference: nn.Module,
        patch: Tensor,
        inputs: Tensor,
        labels: Tensor,
        generator: torch.Generator,
    ) -> nn.Module:
        """Return the model after it has learned that the patch means nothing."""
        # In eval mode, as is the reference: dropout and batch statistics are no part of unlearning.
        adapted = copy.deepcopy(reference).requires_grad_(True)
        optimiser = torch.optim.SGD(adapted.parameters(), lr=self.adapt_rate)
        for _ in range(self.adapt_steps):
            batch = _draw(len(inputs), self.batch_size, generator)
            shown = self._show(inputs[batch].to(patch.device), patch.detach())
            optimiser.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(adapted(shown), labels[batch].to(patch.device))
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return adapted.requires_grad_(False)

    def _flat(self) -> Patch:
        return Patch(size=self.size, position=self.position, value=self.start)

    def _show(self, inputs: Tensor, patch: Tensor) -> Tensor:
        """Return `inputs` with the patch; gradients reach it."""
        top, left = self.position
        shown = inputs.clone()
        shown[..., top : top + patch.shape[-2], left : left + patch.shape[-1]] = patch
        return shown


def _draw(samples: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """Return the indices of a random batch, `(k,)` int64, none twice."""
    return torch.randperm(samples, generator=generator)[:batch_size]


def _similarity(one: nn.Module, other: nn.Module) -> float:
    """Return the cosine similarity of all parameters."""
    flat = [torch.cat([p.flatten() for p in m.parameters()]) for m in (one, other)]
    return float(functional.cosine_similarity(flat[0], flat[1], dim=0))
