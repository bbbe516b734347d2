"""Feature maps before the first fully connected layer, Grad-CAM of them, and their evidence.

The features that MBDS looks at (section V-A; alternatives, V-E).
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fl_shield.activations.penultimate import call_model
from fl_shield.errors import ModelError

Features = Literal["feature_maps", "grad_cam", "evidence"]

CHUNK = 256


class FeatureMapReader:
    """Reads what flows into the first fully connected layer of a model, as maps.

    Args:
        model: The model; a copy of it is read, in eval mode.
        sample: Inputs to find the layer with.

    Raises:
        ModelError: if no `nn.Linear` takes part in the forward pass.
    """

    def __init__(self, model: nn.Module, sample: Tensor) -> None:
        self._model = copy.deepcopy(model).eval()
        self._maps: list[Tensor] = []
        self._input: Tensor | None = None
        for module in self._model.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(self._arrive)
            elif not list(module.children()):
                module.register_forward_hook(self._remember)
        with torch.no_grad():
            self.shape = tuple(int(n) for n in self._run(sample[:2])[1].shape[1:])

    def read(self, inputs: Tensor, features: Features = "feature_maps") -> tuple[Tensor, Tensor]:
        """Return logits and features.

        Args:
            inputs: `(samples, …)` in the form the model takes.
            features: `"feature_maps"`: `(samples, channels, height, width)` activations;
                `"grad_cam"`: `(samples, 1, height, width)`, for the predicted class;
                `"evidence"`: `(samples, channels, height, width)`, activations times the slopes of
                the predicted class's logit.
        """
        parts = []
        for chunk in torch.split(inputs, CHUNK):
            if features == "grad_cam":
                parts.append(self._grad_cam(chunk))
            elif features == "evidence":
                given, maps, slopes = self._slopes(chunk)
                parts.append((given, slopes * maps))
            else:
                with torch.no_grad():
                    parts.append(self._run(chunk))
        logits, found = (torch.cat(side).detach() for side in zip(*parts, strict=True))
        return logits.float(), found.float()

    def _grad_cam(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and `ReLU(Σ_k w_k A^k)`, `w_k` the mean gradient over the map `A^k`.

        Selvaraju et al., *Grad-CAM*, ICCV 2017, equations 1 and 2.
        """
        logits, maps, slopes = self._slopes(inputs)
        weights = slopes.mean(dim=(2, 3), keepdim=True)
        return logits, (weights * maps).sum(dim=1, keepdim=True).relu()

    def _slopes(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, maps, and the slopes of the largest logit there."""
        with torch.enable_grad():
            logits, maps = self._run(inputs)
            if not maps.requires_grad:
                raise ModelError(
                    "Grad-CAM and evidence need a model with trainable layers before the maps."
                )
            (slopes,) = torch.autograd.grad(logits.amax(dim=1).sum(), maps)
        return logits, maps, slopes

    def _run(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        self._maps, self._input = [], None
        logits = call_model(self._model, inputs)
        if self._input is None:
            raise ModelError(
                "The model has no fully connected layer (torch.nn.Linear), in front of which MBDS "
                "reads its feature maps."
            )
        found = self._as_maps(self._input)
        self._maps, self._input = [], None
        return logits, found

    def _as_maps(self, flat: Tensor) -> Tensor:
        """Return the last map that flows into the layer, or its input as maps of one pixel."""
        for maps in reversed(self._maps):
            if maps.dim() == 4 and maps[0].numel() == flat[0].numel():
                return maps
        return flat.flatten(1)[:, :, None, None]

    def _remember(self, _module: nn.Module, _args: Any, output: Any) -> None:
        if self._input is None and isinstance(output, Tensor):
            self._maps.append(output)

    def _arrive(self, _module: nn.Module, args: Any) -> None:
        if self._input is None:
            self._input = args[0]
