"""What the statistics of other defences look at, computed once for a cohort and shared.

Only trainable *parameters* enter an update vector; BatchNorm statistics and counters do not. All
clients' updates are held at once, as float32: `clients · parameters · 4` bytes.
"""

from __future__ import annotations

import copy
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_shield.activations.penultimate import PenultimateReader, find_final_layer
from fl_shield.cohort import Cohort, State
from fl_shield.data.task import Split
from fl_shield.errors import ConfigurationError, expected
from fl_shield.models.state import load_arrays
from fl_shield.probes.probe_set import Inputs, ProbeSet
from fl_shield.training.local import LocalTraining, train_locally

Floats = NDArray[np.float64]

CHUNK = 1 << 20
"""Columns that are turned into double precision at a time."""


class Observed:
    """A cohort with what is derived from it; everything is computed when first asked for.

    Args:
        cohort: The global model and the admitted updates.
        model: The architecture; a private copy is used.
        probes: Clean samples that the server holds.
        seed: Seed of noise inputs and of the server's own training.
        training: How the server trains for FLTrust: as its clients do.
        trusted_update: `(parameters,)` update of the server, where it is at hand already.
        final_layer: Name of the final classification layer, None to find it.
    """

    def __init__(
        self,
        cohort: Cohort,
        model: nn.Module,
        probes: ProbeSet,
        *,
        seed: int = 0,
        training: LocalTraining | None = None,
        trusted_update: NDArray[np.floating] | None = None,
        final_layer: str | None = None,
    ) -> None:
        self.cohort, self.probes, self.seed = cohort, probes, seed
        self.training = LocalTraining() if training is None else training
        self.model = copy.deepcopy(model).float().eval()
        load_arrays(self.model, cohort.reference)
        self.names = tuple(n for n, p in self.model.named_parameters() if p.requires_grad)
        self._trusted = trusted_update
        self._final_layer = final_layer

    def __len__(self) -> int:
        return len(self.cohort)

    @cached_property
    def reference(self) -> NDArray[np.float32]:
        """Global parameters, `(parameters,)`."""
        return self.flatten(self.cohort.reference)

    @cached_property
    def updates(self) -> NDArray[np.float32]:
        """Client minus global parameters, `(clients, parameters)`."""
        rows = np.empty((len(self), self.reference.size), dtype=np.float32)
        for row, client in zip(rows, self.cohort.clients, strict=True):
            row[:] = self.flatten(client.load(), minus=self.cohort.reference)
        return rows

    @cached_property
    def gram(self) -> Floats:
        """Inner products of the updates, `(clients, clients)`, summed in double precision."""
        return products(self.updates)

    @cached_property
    def norms(self) -> Floats:
        """Euclidean norms of the updates, `(clients,)`."""
        return np.sqrt(np.clip(np.diag(self.gram), 0.0, None))

    @cached_property
    def final_layer(self) -> str:
        """Name of the final classification layer."""
        return find_final_layer(self.model, self.probes.inputs, self._final_layer)

    @cached_property
    def activations(self) -> list[Tensor]:
        """Penultimate activations of every client on the probes, `(samples, features)` each."""
        return [self.read(client.load(), self.probes.inputs)[1] for client in self.cohort.clients]

    @cached_property
    def trusted_update(self) -> Floats:
        """Update that the server makes itself, on its probes, `(parameters,)`.

        Raises:
            ConfigurationError: if the probes carry no labels or are not one tensor.
        """
        if self._trusted is not None:
            return np.asarray(self._trusted, dtype=np.float64)
        if self.probes.labels is None or not isinstance(self.probes.inputs, Tensor):
            raise ConfigurationError(
                expected(
                    "probes",
                    "one tensor of inputs with labels",
                    "unlabelled" if self.probes.labels is None else "a mapping of tensors",
                    "FLTrust trains on the server's samples: ProbeSet(inputs, labels).",
                )
            )
        trained = copy.deepcopy(self.model)
        split = Split(self.probes.inputs, self.probes.labels)
        train_locally(trained, split, self.training, seed=self.seed)
        state = {name: t.detach().cpu().numpy() for name, t in trained.named_parameters()}
        moved = self.flatten(state).astype(np.float64) - self.reference
        return np.nan_to_num(moved, nan=0.0, posinf=0.0, neginf=0.0)

    def flatten(self, state: State, minus: State | None = None) -> NDArray[np.float32]:
        """Return the parameters of a state (minus those of another) as one float32 vector."""
        parts = []
        for name in self.names:
            part = state[name].astype(np.float64)
            base = 0.0 if minus is None else minus[name].astype(np.float64)
            parts.append((part - base).ravel())
        return np.concatenate(parts).astype(np.float32)

    def head(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the updates of the final layer: weight `(clients, classes, features)` and bias.

        The bias is `(clients, classes)`, zeros where the layer has none; a layer whose weight is
        tied to another's counts as one without features.
        """
        prefix = f"{self.final_layer}." if self.final_layer else ""
        layer = self.model.get_submodule(self.final_layer)
        rows = int(self.reference_logits_width())
        weight = self._part(f"{prefix}weight")
        bias = self._part(f"{prefix}bias") if getattr(layer, "bias", None) is not None else None
        if weight is None or weight.shape[1] != rows:
            weight = np.zeros((len(self), rows, 0), dtype=np.float32)
        if bias is None:
            bias = np.zeros((len(self), rows), dtype=np.float32)
        return weight.reshape(len(self), rows, -1), bias

    def reference_logits_width(self) -> int:
        """Return the number of classes, as the global model answers."""
        logits, _ = self.read(self.cohort.reference, self.probes.inputs)
        return int(logits.shape[1])

    def read(self, state: State, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return logits and penultimate activations of a state, see `PenultimateReader.read`."""
        return self._reader.read(self.tensors(state), inputs)

    def tensors(self, state: State) -> dict[str, Tensor]:
        """Return a state in the model's dtypes and on its device, tied weights only once."""
        own: dict[str, Tensor] = {
            **dict(self.model.named_parameters()),
            **dict(self.model.named_buffers()),
        }
        return {
            name: torch.from_numpy(np.array(state[name])).to(tensor.detach())
            for name, tensor in own.items()
            if name in state
        }

    @cached_property
    def _reader(self) -> PenultimateReader:
        name = self.final_layer
        return PenultimateReader(self.model, name)

    def _part(self, name: str) -> NDArray[np.float32] | None:
        start = 0
        parameters = dict(self.model.named_parameters())
        for own in self.names:
            size = parameters[own].numel()
            if own == name:
                shape = tuple(parameters[own].shape)
                return self.updates[:, start : start + size].reshape(len(self), *shape)
            start += size
        return None


def products(left: NDArray[np.floating], right: NDArray[np.floating] | None = None) -> Floats:
    """Return `left @ right.T` (`left @ left.T`) in double precision, a few columns at a time.

    Args:
        left: `(n, parameters)`.
        right: `(m, parameters)`, None for `left`.
    """
    other = left if right is None else right
    total = np.zeros((left.shape[0], other.shape[0]), dtype=np.float64)
    for start in range(0, left.shape[1], CHUNK):
        part = left[:, start : start + CHUNK].astype(np.float64)
        rest = part if right is None else right[:, start : start + CHUNK].astype(np.float64)
        total += part @ rest.T
    return total


def cosines(gram: Floats) -> Floats:
    """Return cosines in [−1, 1] from inner products; 0 with a vector of norm zero, 1 with itself.

    Args:
        gram: `(n, n)` inner products.
    """
    norms = np.sqrt(np.clip(np.diag(gram), 0.0, None))
    scale = np.outer(norms, norms)
    cosine = np.divide(gram, scale, out=np.zeros_like(gram), where=scale > 0)
    np.fill_diagonal(cosine, 1.0)
    return np.asarray(np.clip(cosine, -1.0, 1.0))


def squared_distances(gram: Floats) -> Floats:
    """Return squared Euclidean distances `(n, n)` from inner products, zero on the diagonal."""
    square = np.diag(gram)
    distances = np.clip(square[:, None] + square[None, :] - 2 * gram, 0.0, None)
    np.fill_diagonal(distances, 0.0)
    return np.asarray(distances)
