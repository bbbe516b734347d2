"""The probe set: a few clean samples of the task that only the server holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fl_shield.data.sampling import stratified_indices
from fl_shield.errors import ConfigurationError, expected

Inputs = Tensor | Mapping[str, Tensor]
"""What a model is called with: one tensor, or named tensors (`input_ids`, `attention_mask`, …)."""

MIN_PROBES = 4
"""Below this, class means and spreads of activations say nothing."""

MAX_PROBES = 16
"""Probes that are looked at by default: the detector was trained and calibrated with as many, and
the time that a round is inspected for is in proportion."""


@dataclass(frozen=True)
class ProbeSet:
    """Clean samples in the form the model takes them; they never leave the server.

    Attributes:
        inputs: `(samples, …)` float images or int64 token ids, called as `model(inputs)`; or a
            mapping of such tensors, called as `model(**inputs)`.
        labels: `(samples,)` int64 class indices, or None when the samples are unlabelled.
        num_classes: Number of classes; when given, labels are checked against it.

    Raises:
        ConfigurationError: if the set is empty or too small, holds values that are not finite, or
            if its parts differ in length or a label is outside the classes.
    """

    inputs: Inputs
    labels: Tensor | None = None
    num_classes: int | None = None

    def __post_init__(self) -> None:
        """Check the set once, at the server's start, rather than in the middle of a run."""
        tensors = self.tensors()
        if not tensors:
            raise ConfigurationError(
                "The probe set holds no tensors. Give it a handful of clean samples, for example "
                "ProbeSet(inputs, labels)."
            )
        for name, tensor in tensors.items():
            _check_inputs(name, tensor)
        sizes = {int(tensor.shape[0]) for tensor in tensors.values()}
        if len(sizes) > 1:
            raise ConfigurationError(
                expected("probes.inputs", "tensors of one length", sorted(sizes))
            )
        if len(self) < MIN_PROBES:
            raise ConfigurationError(
                expected("probes.inputs", f"at least {MIN_PROBES} samples", len(self))
                + " 16 clean samples of the task are a good probe set."
            )
        if self.labels is not None:
            _check_labels(self.labels, len(self), self.num_classes)

    def __len__(self) -> int:
        tensors = self.tensors()
        return int(next(iter(tensors.values())).shape[0]) if tensors else 0

    def tensors(self) -> dict[str, Tensor]:
        """Return the input tensors by name (`"inputs"` for a lone tensor)."""
        return {"inputs": self.inputs} if isinstance(self.inputs, Tensor) else dict(self.inputs)

    def limited(self, most: int) -> ProbeSet:
        """Return the set itself, or `most` of its samples that draw on the classes evenly.

        Without labels they are the first ones. The order is kept.

        Raises:
            ConfigurationError: if `most` is below `MIN_PROBES`.
        """
        if isinstance(most, bool) or not isinstance(most, int) or most < MIN_PROBES:
            raise ConfigurationError(
                expected("max_probes", f"an integer of at least {MIN_PROBES}", most)
            )
        if len(self) <= most:
            return self
        chosen = torch.arange(most)
        if self.labels is not None:
            chosen = stratified_indices(self.labels, most, seed=0).sort().values
        named = {name: tensor[chosen] for name, tensor in self.tensors().items()}
        inputs = named["inputs"] if isinstance(self.inputs, Tensor) else named
        labels = None if self.labels is None else self.labels[chosen]
        return ProbeSet(inputs, labels, self.num_classes)

    @property
    def token_ids(self) -> Tensor | None:
        """The `(samples, length)` token ids of a text probe set, None for other kinds."""
        tensors = self.tensors()
        ids = tensors.get("input_ids", tensors.get("inputs"))
        is_text = ids is not None and not ids.is_floating_point() and ids.dim() == 2
        return ids if is_text else None


def placed(inputs: Inputs, device: torch.device) -> Inputs:
    """Return the inputs on a device, numbers in single precision."""
    if not isinstance(inputs, Tensor):
        return {key: _placed(tensor, device) for key, tensor in inputs.items()}
    return _placed(inputs, device)


def as_probe_set(probes: object) -> ProbeSet:
    """Return `probes` as a `ProbeSet`: one already, a tensor, a mapping, or `(inputs, labels)`.

    Raises:
        ConfigurationError: if it is none of these.
    """
    if isinstance(probes, ProbeSet):
        return probes
    if isinstance(probes, Tensor | Mapping):
        return ProbeSet(probes)
    if isinstance(probes, tuple) and len(probes) == 2:
        return ProbeSet(*probes)
    raise ConfigurationError(
        expected(
            "probes",
            "a ProbeSet, a tensor of clean samples or a pair (inputs, labels)",
            type(probes).__name__,
            "Give MetaShield 16 or more clean samples of the task that the server holds.",
        )
    )


def _placed(tensor: Tensor, device: torch.device) -> Tensor:
    moved = tensor.to(device)
    return moved.float() if moved.is_floating_point() else moved


def _check_inputs(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise ConfigurationError(
            expected(f"probes.{name}", "a torch.Tensor", type(tensor).__name__)
        )
    if tensor.dim() < 2:
        raise ConfigurationError(
            expected(
                f"probes.{name}", "a batch of samples, of shape (samples, …)", tuple(tensor.shape)
            )
        )
    if tensor.dtype == torch.uint8:
        raise ConfigurationError(
            expected(
                f"probes.{name}",
                "in the form the model takes",
                "bytes (torch.uint8)",
                "Convert images as your data loader does, for example inputs.float() / 255.",
            )
        )
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise ConfigurationError(expected(f"probes.{name}", "finite", "NaN or infinite values"))


def _check_labels(labels: Tensor, num_samples: int, num_classes: int | None) -> None:
    if labels.is_floating_point() or tuple(labels.shape) != (num_samples,):
        raise ConfigurationError(
            expected(
                "probes.labels",
                f"integer class indices of shape ({num_samples},)",
                f"{labels.dtype} of shape {tuple(labels.shape)}",
            )
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (num_classes is not None and high >= num_classes):
        limit = "" if num_classes is None else f" below {num_classes}"
        raise ConfigurationError(
            expected("probes.labels", f"class indices from 0{limit}", f"{low} to {high}")
        )
