"""Finding the final classification layer of a model and reading what flows into it.

*Penultimate activations* are the input of the final classification layer. The layer is found by
running the model once: it is the last module with parameters whose output is the model's output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fl_shield.errors import ModelError, unknown
from fl_shield.probes.probe_set import Inputs

LIMIT = 1e6
"""Logits and activations of extrapolated or hostile weights are limited to this size."""


def limited(values: Tensor) -> Tensor:
    """Return finite values within ±`LIMIT`."""
    return torch.nan_to_num(values, nan=0.0, posinf=LIMIT, neginf=-LIMIT).clamp(-LIMIT, LIMIT)


def call_model(model: nn.Module, inputs: Inputs) -> Tensor:
    """Return the logits `(samples, classes)` of `model` on `inputs`.

    Accepts models that return a tensor, a tuple that begins with it, or an object with `logits`
    (as `transformers` classifiers do).

    Raises:
        ModelError: if the model cannot take the inputs, or its output is not a matrix of logits.
    """
    try:
        output = model(inputs) if isinstance(inputs, Tensor) else model(**inputs)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise ModelError(
            f"The model cannot take the probe set ({_shapes(inputs)}): {error}. "
            "Give probes of the shape and dtype the model is trained on."
        ) from error
    return logits_of(output)


def logits_of(output: Any) -> Tensor:
    """Return the logits tensor inside a model's output.

    Raises:
        ModelError: if there is no `(samples, classes)` tensor with at least two classes.
    """
    logits = getattr(output, "logits", output)
    if isinstance(logits, tuple | list) and logits:
        logits = logits[0]
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[1] < 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(
            f"Expected the model to return logits of shape (samples, classes) with at least two "
            f"classes, got {found}. MetaShield judges classifiers."
        )
    return logits


def logits_under(model: nn.Module, state: Mapping[str, Tensor], inputs: Inputs) -> Tensor:
    """Return the logits `(samples, classes)` of a model with the weights of `state`."""
    args, kwargs = ((inputs,), {}) if isinstance(inputs, Tensor) else ((), dict(inputs))
    return logits_of(torch.func.functional_call(model, dict(state), args, kwargs))


def find_final_layer(model: nn.Module, inputs: Inputs, name: str | None = None) -> str:
    """Return the name of the final classification layer of `model`.

    Args:
        model: The model, in eval mode.
        inputs: A batch the model can be called with.
        name: The layer's name when the caller knows it; it is only checked.

    Raises:
        ModelError: if `name` is unknown or is not run, or if no layer can be found.
    """
    # A bare layer is a model too; its name in itself is "".
    modules = {key: m for key, m in model.named_modules() if key or _has_own_parameters(m)}
    if name is not None and name not in modules:
        raise ModelError(unknown("layer", name, modules))
    ran: list[tuple[str, Tensor]] = []

    def remember(key: str) -> Any:
        def hook(_module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                ran.append((key, output.detach()))

        return hook

    watched = {
        key: module
        for key, module in modules.items()
        if key == name or (name is None and _has_own_parameters(module))
    }
    handles = [
        m.register_forward_hook(remember(key), with_kwargs=True) for key, m in watched.items()
    ]
    try:
        with torch.no_grad():
            logits = call_model(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    if name is not None:
        if not ran:
            raise ModelError(f"The layer {name!r} takes no part in the model's forward pass.")
        return name
    for key, output in reversed(ran):
        if output.shape == logits.shape and torch.equal(output, logits):
            return key
    candidates = ", ".join(key for key, _ in ran[-5:]) or "none"
    raise ModelError(
        "The penultimate layer of the model was not found: no single layer returns the logits. "
        "Name the final classification layer, MetaShield(…, final_layer='…'); the last layers "
        f"that ran are: {candidates}."
    )


class PenultimateReader:
    """Runs a model with any weights and returns logits and penultimate activations.

    Args:
        model: The architecture; it is neither moved nor changed, and is expected in eval mode.
        final_layer: Name of the final classification layer (see `find_final_layer`).
    """

    def __init__(self, model: nn.Module, final_layer: str) -> None:
        self._model = model
        self._captured: Tensor | None = None
        layer = model.get_submodule(final_layer)
        layer.register_forward_pre_hook(self._capture, with_kwargs=True)

    def _capture(self, _module: nn.Module, args: Any, kwargs: Any) -> None:
        self._captured = args[0] if args else next(iter(kwargs.values()))

    def read(self, state: Mapping[str, Tensor] | None, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return `(logits, activations)` under the weights `state`.

        Args:
            state: Parameters and buffers by name; those left out are the model's own. None runs
                the model as it is, which is quicker.
            inputs: A batch the model can be called with.

        Returns:
            Float32 logits `(samples, classes)` and activations `(samples, features)`; activations
            with more axes are averaged over the middle ones (positions).
        """
        args, kwargs = ((inputs,), {}) if isinstance(inputs, Tensor) else ((), dict(inputs))
        with torch.no_grad():
            if state is None:
                output = self._model(*args, **kwargs)
            else:
                output = torch.func.functional_call(self._model, dict(state), args, kwargs)
        hidden = self._captured
        self._captured = None
        if hidden is None:
            raise ModelError("The final classification layer did not run under these weights.")
        if hidden.dim() > 2:
            hidden = hidden.flatten(1, -2).mean(dim=1)
        return logits_of(output).float(), hidden.float()


def _has_own_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _shapes(inputs: Inputs) -> str:
    tensors = {"inputs": inputs} if isinstance(inputs, Tensor) else inputs
    return ", ".join(
        f"{key} {tuple(value.shape)} {value.dtype}".replace("torch.", "")
        for key, value in tensors.items()
    )
