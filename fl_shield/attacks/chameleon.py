"""Chameleon: draw triggered inputs close to the target class first, then teach to classify them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_shield.activations.penultimate import find_final_layer
from fl_shield.attacks.model_poisoning import Knowledge, NoModelPoisoning, Parameters
from fl_shield.attacks.reading import read
from fl_shield.data.task import model_inputs
from fl_shield.errors import expected, raise_all


@dataclass(frozen=True)
class Chameleon(NoModelPoisoning):
    """Contrastive features first, then classification (Dai and Li, Chameleon, ICML 2023).

    Stage one trains everything below the final layer on the supervised contrastive loss of the
    poisoned batches: triggered inputs carry the target's label and are drawn to its true samples
    (facilitators), away from those of their own class (interferers). Stage two trains on the
    classification loss.

    Differs from the paper: both stages share the steps of one ordinary local training, with its
    optimiser, so that the attacker is not betrayed by its effort; and stage two trains everything.
    The paper freezes what stage one trained (`frozen`) and trains for many epochs; in the few steps
    of one local training the final layer alone does not learn enough to outlast the average.

    Attributes:
        contrastive_share: Share of the steps in stage one, in [0, 1).
        temperature: Temperature of the contrastive loss; the authors take 0.07.
        target_weight: How much more samples of the target class count; the authors take 2.
        target_class: The class of the attack.
        frozen: Whether stage two trains the final layer alone.
        final_layer: Name of the final layer; found when a local training begins.
        first_steps: Steps of stage one; known when a local training begins.
        done: How many steps were taken, one entry.

    Raises:
        ConfigurationError: if a setting is out of range.
    """

    contrastive_share: float = 0.2
    temperature: float = 0.07
    target_weight: float = 2.0
    target_class: int = 0
    frozen: bool = False
    final_layer: str = field(default="", repr=False, compare=False)
    first_steps: int = field(default=0, repr=False, compare=False)
    done: list[int] = field(default_factory=lambda: [0], repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        problems = []
        if not 0 <= self.contrastive_share < 1:
            problems.append(
                expected("model_poisoning.contrastive_share", "in [0, 1)", self.contrastive_share)
            )
        for name in ("temperature", "target_weight"):
            if not getattr(self, name) > 0:
                problems.append(expected(f"model_poisoning.{name}", "above 0", getattr(self, name)))
        raise_all(problems)

    def __str__(self) -> str:
        return "Chameleon"

    @property
    def is_contrastive(self) -> bool:
        """Whether the next step belongs to stage one."""
        return self.done[0] < self.first_steps

    @property
    def task_weight(self) -> float:
        """The classification loss counts in stage two only."""
        return 0.0 if self.is_contrastive else 1.0

    def begin(self, model: nn.Module, knowledge: Knowledge) -> Chameleon:
        """Return the attack at the beginning of stage one."""
        sample = model_inputs(knowledge.samples.inputs[:1]).to(next(model.parameters()).device)
        return replace(
            self,
            final_layer=find_final_layer(model, sample),
            first_steps=round(self.contrastive_share * knowledge.num_steps),
            done=[0],
        )

    def penalty(
        self, model: nn.Module, reference: Parameters, inputs: Tensor, labels: Tensor
    ) -> Tensor | None:
        """Return the contrastive loss of the batch in stage one."""
        if not self.is_contrastive:
            return None
        _, features = read(model, self.final_layer, inputs)
        weights = torch.where(labels == self.target_class, self.target_weight, 1.0)
        return supervised_contrastive(features, labels, weights, self.temperature)

    def after_backward(self, model: nn.Module) -> None:
        """Leave the final layer alone in stage one; if frozen, everything else in stage two."""
        if not (self.is_contrastive or self.frozen):
            return
        head = {id(p) for p in model.get_submodule(self.final_layer).parameters()}
        for parameter in model.parameters():
            if (id(parameter) in head) == self.is_contrastive:
                parameter.grad = None  # a gradient of zero would go on moving by momentum

    def after_step(self, model: nn.Module, reference: Parameters, step: int) -> None:
        """Count the step."""
        self.done[0] = step


def supervised_contrastive(
    features: Tensor, labels: Tensor, weights: Tensor, temperature: float
) -> Tensor:
    """Return the supervised contrastive loss (Khosla et al., NeurIPS 2020, L_out, eq. 2), a scalar.

    Args:
        features: `(batch, features)`, normalised here.
        labels: `(batch,)`; samples with the same label are positives of each other.
        weights: `(batch,)` how much each sample counts as an anchor; the loss is the weighted
            mean over the anchors that have a positive, 0 where none has.
        temperature: Of the softmax over cosines.
    """
    cosines = functional.normalize(features, dim=1)
    logits = cosines @ cosines.T / temperature
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive = (labels[:, None] == labels[None, :]) & ~itself
    shares = logits - logits.masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    counts = positive.sum(dim=1)
    anchors = counts > 0
    if not anchors.any():
        return features.sum() * 0.0
    losses = -shares.masked_fill(~positive, 0.0).sum(dim=1)[anchors] / counts[anchors]
    chosen = weights[anchors]
    return (losses * chosen).sum() / chosen.sum()
