"""An attacker that knows the shield, and trains to answer probes as a benign client does."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from fl_shield.activations.penultimate import find_final_layer
from fl_shield.attacks.model_poisoning import Knowledge, NoModelPoisoning, Parameters, movable
from fl_shield.attacks.reading import read
from fl_shield.data.task import model_inputs
from fl_shield.errors import expected, raise_all

Answers = tuple[Tensor, Tensor]
"""Logits and penultimate features of some inputs."""

TINY = 1e-8
"""Mean squares below this count as nothing."""


@dataclass(frozen=True)
class DetectorAware(NoModelPoisoning):
    """Adds to its loss what the shield would see, and keeps norm and direction of a benign update.

    What the attacker knows: the method of the shield, the model that it received, its own samples
    and an honest training on them. It does not know the server's probes, nor anything of other
    clients; it stands in for the probes with its own clean samples and with noise, and for the
    cohort with its honest update b.

    The penalty compares logits and penultimate features at `G + s · d`, for its update d and each
    scale s, with those at `G + s · b`: root mean squares of the differences, relative to how far
    b itself moves them. (The shield first brings all updates to one length; a penalty that did so
    too would have a gradient without bound at the first steps.) After each step d is shortened to
    `max_norm · ‖b‖` at most, and turned towards b until its cosine with b is at least
    `min_cosine`.

    Attributes:
        weight: Weight of the penalty; 0 leaves the projections alone.
        scales: The scales of the probed updates; a shield may look at 0.25, 1, 4 and 10.
        num_inputs: Clean samples to probe with, and as many of noise.
        max_norm: Largest norm, in norms of the honest update.
        min_cosine: Smallest cosine with the honest update, in [-1, 1).
        benign: The honest update by parameter; learned when a local training begins.
        probe: What to compare with; learned when a local training begins.

    Raises:
        ConfigurationError: if a setting is out of range.
    """

    weight: float = 0.3
    scales: Sequence[float] = (1.0, 4.0, 10.0)
    num_inputs: int = 16
    max_norm: float = 1.0
    min_cosine: float = 0.0
    benign: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    probe: Probe | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        problems = []
        if not self.weight >= 0:
            problems.append(expected("model_poisoning.weight", "0 or more", self.weight))
        if not self.scales or not all(scale > 0 for scale in self.scales):
            problems.append(expected("model_poisoning.scales", "numbers above 0", self.scales))
        if self.num_inputs < 1:
            problems.append(expected("model_poisoning.num_inputs", "1 or more", self.num_inputs))
        if not self.max_norm > 0:
            problems.append(expected("model_poisoning.max_norm", "above 0", self.max_norm))
        if not -1 <= self.min_cosine < 1:
            problems.append(expected("model_poisoning.min_cosine", "in [-1, 1)", self.min_cosine))
        raise_all(problems)

    def __str__(self) -> str:
        return f"detector-aware {self.weight:g}"

    def begin(self, model: nn.Module, knowledge: Knowledge) -> DetectorAware:
        """Return the attack with an honest update, and how probes answer to it."""
        reference = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        benign = {n: p - reference[n] for n, p in knowledge.train_benign(0).items()}
        device = next(model.parameters()).device
        clean = model_inputs(knowledge.samples.inputs[: self.num_inputs]).to(device)
        own = copy.deepcopy(model).requires_grad_(False)  # keeps the BatchNorm statistics received
        layer = find_final_layer(own, clean)
        probe = Probe(own, layer, torch.cat([clean, noise_like(clean)]), reference)
        return replace(self, benign=benign, probe=probe.expecting(benign, self.scales))

    def penalty(
        self, model: nn.Module, reference: Parameters, inputs: Tensor, labels: Tensor
    ) -> Tensor | None:
        """Return how much more the probes tell than they would of the honest update."""
        if self.probe is None or self.weight == 0:
            return None
        parameters = dict(model.named_parameters())
        update = {name: parameters[name] - reference[name] for name in self.benign}
        return self.weight * self.probe.difference(update)

    @torch.no_grad()
    def after_step(self, model: nn.Module, reference: Parameters, step: int) -> None:
        """Project the parameters."""
        parameters = dict(model.named_parameters())
        trained = {name: parameters[name] for name in reference}
        for name, tensor in self.craft(reference, trained).items():
            parameters[name].copy_(tensor)

    def craft(self, reference: Parameters, trained: Parameters) -> dict[str, Tensor]:
        """Return the parameters with an update of benign length and direction."""
        names = [name for name in movable(trained) if name in self.benign]
        if not names:
            return dict(trained)
        moved = torch.cat([(trained[n] - reference[n]).flatten() for n in names])
        benign = torch.cat([self.benign[n].flatten() for n in names])
        turned = turn_towards(moved, benign, self.min_cosine)
        limit = self.max_norm * torch.linalg.vector_norm(benign)
        turned = turned * (limit / torch.linalg.vector_norm(turned).clamp(min=1e-12)).clamp(max=1.0)
        crafted, start = dict(trained), 0
        for name in names:
            size = trained[name].numel()
            part = turned[start : start + size].view_as(trained[name])
            crafted[name] = reference[name] + part
            start += size
        return crafted


@dataclass(frozen=True, eq=False)
class Probe:
    """Inputs, and how a model with an honest update answers them.

    Attributes:
        model: The model as received, in eval mode.
        final_layer: Name of its final layer.
        inputs: What it is asked.
        reference: Its parameters.
        scales: The scales of the update.
        expected: The answers at each scale, and how far they are from the model's without update:
            a mean square for logits and one for features.
    """

    model: nn.Module
    final_layer: str
    inputs: Tensor
    reference: Parameters
    scales: Sequence[float] = ()
    expected: Sequence[tuple[Answers, tuple[float, float]]] = ()

    @torch.no_grad()
    def expecting(self, update: Parameters, scales: Sequence[float]) -> Probe:
        """Return the probe that expects the answers of `update`."""
        before = self.answers(update, 0.0)
        found = []
        for scale in scales:
            after = self.answers(update, scale)
            moves = [float((a - b).square().mean()) for a, b in zip(after, before, strict=True)]
            found.append((after, (moves[0], moves[1])))
        return replace(self, scales=tuple(scales), expected=tuple(found))

    def difference(self, update: Parameters) -> Tensor:
        """Return the mean relative distance from the answers expected, a scalar."""
        terms = []
        for scale, (wanted, moves) in zip(self.scales, self.expected, strict=True):
            for own, other, move in zip(self.answers(update, scale), wanted, moves, strict=True):
                share = (own - other).square().mean() / max(move, TINY)
                terms.append((share + TINY).sqrt())  # a root has no gradient at 0
        return torch.stack(terms).mean()

    def answers(self, update: Parameters, scale: float) -> Answers:
        """Return logits and features at `reference + scale · update`, with their graph."""
        state = {name: self.reference[name] + scale * move for name, move in update.items()}
        with torch.backends.cudnn.flags(enabled=False):  # its RNNs have no backward in eval mode
            return read(self.model, self.final_layer, self.inputs, state)


def noise_like(inputs: Tensor) -> Tensor:
    """Return uniform noise for images, the same tokens in any order for texts; shaped alike."""
    if inputs.is_floating_point():
        return torch.rand_like(inputs)
    order = torch.randperm(inputs.numel(), device=inputs.device)
    return inputs.flatten()[order].view_as(inputs)


def turn_towards(vector: Tensor, axis: Tensor, min_cosine: float) -> Tensor:
    """Return the vector of the same length, nearest to `vector`, with at least this cosine.

    Args:
        vector: `(n,)`; along the axis where it is zero.
        axis: `(n,)`; where it is zero, there is no direction and `vector` is returned.
        min_cosine: Smallest cosine of the result with `axis`.
    """
    length, wanted = torch.linalg.vector_norm(vector), torch.linalg.vector_norm(axis)
    if float(length) == 0 or float(wanted) == 0:
        return vector
    unit = axis / wanted
    along = vector @ unit
    if float(along) >= min_cosine * float(length):
        return vector
    across = vector - along * unit
    height = torch.linalg.vector_norm(across)
    if float(height) <= 1e-12 * float(length):  # straight against the axis: no nearest one
        opposite: Tensor = min_cosine * length * unit
        return opposite
    result: Tensor = length * (min_cosine * unit + (1 - min_cosine**2) ** 0.5 * across / height)
    return result
