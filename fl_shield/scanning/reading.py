"""Running the deployed model: logits and penultimate activations of any number of inputs."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fl_shield.activations.penultimate import PenultimateReader, find_final_layer
from fl_shield.scanning.protocol import Held, require_inputs, require_model

CHUNK = 512
"""Inputs in a forward pass."""


@dataclass(frozen=True)
class Reading:
    """What a model makes of inputs.

    Attributes:
        logits: `(samples, classes)` float32.
        activations: `(samples, features)` float32, penultimate.
    """

    logits: Tensor
    activations: Tensor

    @property
    def predicted(self) -> Tensor:
        """`(samples,)` classes of the highest logits."""
        return self.logits.argmax(dim=1)

    @property
    def probabilities(self) -> Tensor:
        """`(samples, classes)`, rows sum to 1."""
        return self.logits.softmax(dim=1)


class ModelReader:
    """Reads a copy of a model, in eval mode; the model itself is left as it is.

    Args:
        model: The model.
        sample: Inputs to find the final layer with; the first ones are enough.
        final_layer: Name of the final classification layer, None to find it.

    Raises:
        ModelError: if the model cannot take the inputs, or its penultimate layer is not found.
    """

    def __init__(self, model: nn.Module, sample: Tensor, final_layer: str | None = None) -> None:
        self._model = copy.deepcopy(model).eval()
        name = find_final_layer(self._model, sample[:2], final_layer)
        self._reader = PenultimateReader(self._model, name)
        parameter = next(self._model.parameters(), None)
        self._device = torch.device("cpu") if parameter is None else parameter.device

    @classmethod
    def of(cls, held: Held, name: str) -> ModelReader:
        """Return a reader of the deployed model, for the scanner `name`."""
        return cls(require_model(held, name), require_inputs(held, name), held.final_layer)

    def read(self, inputs: Tensor) -> Reading:
        """Return logits and penultimate activations, on the CPU.

        Args:
            inputs: `(samples, …)` in the form the model takes; none at all are fine.
        """
        parts = [
            self._reader.read({}, chunk.to(self._device)) for chunk in torch.split(inputs, CHUNK)
        ]
        logits, activations = (torch.cat(side).cpu() for side in zip(*parts, strict=True))
        return Reading(logits, activations)
