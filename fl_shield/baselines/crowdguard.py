"""CrowdGuard (Rieger et al., NDSS 2024) with the server in the place of the validating clients.

A validator holds samples and a model c trained on them. For sample s, layer l and client m, with D
the distance of the layer's output from the global model's, HLBIM = D(s, m, l) / D(s, c, l): how far
the client moved, in units of how far honest training on these very samples moves. Averages a class
make up a client's row, sign(x) x² of x = HLBIM - 1; in the first principal component of the rows
clients are pruned while statistical tests find them of more than one kind.

In the paper clients validate each other inside trusted hardware. Here the server deals its labelled
probes to several reports, each with a model of its own, and clusters these as the paper's server
clusters those of clients.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fl_shield.baselines.feddefender import LAYERS
from fl_shield.baselines.observed import Floats, Observed
from fl_shield.baselines.protocol import finite
from fl_shield.baselines.significance import beyond_the_gap, differs
from fl_shield.cohort import State
from fl_shield.data.task import Split
from fl_shield.errors import ConfigurationError, expected
from fl_shield.training.local import train_locally

NUM_REPORTS = 5
"""Reports that the server makes by itself."""

WHISKERS = 5.5
"""Interquartile ranges beyond the quartiles that make an outlier."""

Folds = list[NDArray[np.int64]]


def folds_of(labels: NDArray[np.int64], number: int) -> Folds:
    """Return indices of the samples of each report, classes dealt out evenly; none is empty."""
    order = np.argsort(labels, kind="stable")
    return [order[start::number] for start in range(min(number, len(labels)))]


def labelled_inputs(observed: Observed) -> tuple[Tensor, Tensor]:
    """Return the server's samples and their labels.

    Raises:
        ConfigurationError: if the probes carry no labels or are not one tensor.
    """
    probes = observed.probes
    if probes.labels is None or not isinstance(probes.inputs, Tensor):
        raise ConfigurationError(
            expected(
                "probes",
                "one tensor of inputs with labels",
                "unlabelled" if probes.labels is None else "a mapping of tensors",
                "CrowdGuard trains on the server's samples: ProbeSet(inputs, labels).",
            )
        )
    return probes.inputs, probes.labels


def hidden_outputs(observed: Observed, state: State, inputs: Tensor) -> list[Tensor]:
    """Return what every convolutional and linear layer puts out, `(samples, …)` flattened."""
    outputs: list[Tensor] = []

    def remember(_module: nn.Module, _args: object, output: object) -> None:
        if isinstance(output, Tensor) and output.shape[:1] == inputs.shape[:1]:
            outputs.append(output.detach().flatten(1).float())

    layers = [module for module in observed.model.modules() if isinstance(module, LAYERS)]
    handles = [layer.register_forward_hook(remember) for layer in layers]
    try:
        with torch.no_grad():
            torch.func.functional_call(observed.model, observed.tensors(state), (inputs,))
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def layer_distances(outputs: list[Tensor], reference: list[Tensor]) -> Floats:
    """Return cosine and Euclidean distances, `(2, samples, layers)`."""
    pairs = list(zip(outputs, reference, strict=True))
    cosine = torch.stack([1 - functional.cosine_similarity(a, b) for a, b in pairs], dim=1)
    euclid = torch.stack([torch.linalg.vector_norm(a - b, dim=1) for a, b in pairs], dim=1)
    both = torch.stack([cosine.clamp(min=0.0), euclid]).double().cpu().numpy()
    return finite(both)


def features(client: Floats, own: Floats, labels: NDArray[np.int64]) -> Floats:
    """Return a client's row, sign(x) x² of x = HLBIM - 1 averaged by class.

    Args:
        client: `(samples, layers)` distances of the client from the global model.
        own: The same of the validator's model; where it did not move, HLBIM is 0.
        labels: `(samples,)`.

    Returns:
        `(classes · layers,)` in the order of the classes that occur.
    """
    relative = np.divide(client, own, out=np.zeros_like(client), where=own > 0)
    means = [relative[labels == label].mean(axis=0) for label in np.unique(labels)]
    away = np.concatenate(means) - 1.0
    return np.asarray(np.sign(away) * away**2)


def suspects(rows: Floats) -> NDArray[np.bool_]:
    """Return whom a validator accuses, `(clients,)`: fewer than half of them.

    Args:
        rows: `(clients, features)`.
    """
    out, most = np.zeros(len(rows), dtype=np.bool_), max((len(rows) - 1) // 2, 0)
    while True:
        kept = np.flatnonzero(~out)
        values, centre = first_component(rows[kept])
        if not differs(np.append(values, centre), whiskers=WHISKERS):
            return out
        beyond = kept[beyond_the_gap(values, centre)]
        if not len(beyond) or out.sum() + len(beyond) > most:
            return out
        out[beyond] = True


def first_component(rows: Floats) -> tuple[Floats, float]:
    """Return the first principal component of standardised rows, and where their median lies.

    Args:
        rows: `(clients, features)`; the row of medians joins them before they are standardised.
    """
    table = np.vstack([rows, np.median(rows, axis=0)])
    table = table - table.mean(axis=0)
    spread = table.std(axis=0)
    table = np.divide(table, spread, out=np.zeros_like(table), where=spread > 1e-12)
    # By the products of rows: there are few clients and many features.
    values, vectors = np.linalg.eigh(table @ table.T)
    places = vectors[:, -1] * np.sqrt(max(float(values[-1]), 0.0))
    places = places - places[-1]
    if places.sum() < 0:  # the sign of a component is arbitrary
        places = -places
    return places[:-1], 0.0


def reports(observed: Observed, number: int = NUM_REPORTS) -> NDArray[np.bool_]:
    """Return who is accused by each report, `(reports, clients)`; by either distance.

    Raises:
        ConfigurationError: if the probes carry no labels or are not one tensor.
    """
    inputs, labels = labelled_inputs(observed)
    classes = labels.cpu().numpy().astype(np.int64)
    before = hidden_outputs(observed, observed.cohort.reference, inputs)
    moved = [
        layer_distances(hidden_outputs(observed, client.load(), inputs), before)
        for client in observed.cohort.clients
    ]
    accused = []
    for place, fold in enumerate(folds_of(classes, number)):
        chosen = torch.from_numpy(fold).to(inputs.device)
        model = copy.deepcopy(observed.model)
        seed = observed.seed + place
        train_locally(model, Split(inputs[chosen], labels[chosen]), observed.training, seed=seed)
        state = {n: p.detach().cpu().numpy() for n, p in model.named_parameters()}
        state |= {n: b.detach().cpu().numpy() for n, b in model.named_buffers()}
        reference = [output[chosen] for output in before]
        own = layer_distances(hidden_outputs(observed, state, inputs[chosen]), reference)
        parts = [
            suspects(np.stack([features(m[kind][fold], own[kind], classes[fold]) for m in moved]))
            for kind in range(2)
        ]
        accused.append(parts[0] | parts[1])
    return np.stack(accused)


def agreed(accused: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the report that counts, `(clients,)`: that of the largest group of alike ones.

    The larger of two single-linkage clusters of the reports, and of that the largest group of equal
    ones (DBSCAN with a radius below the distance of any two that differ).

    Args:
        accused: `(reports, clients)`.
    """
    from sklearn.cluster import DBSCAN, AgglomerativeClustering  # seconds to import

    table = accused.astype(np.float64)
    if len(table) > 2:
        halves = AgglomerativeClustering(n_clusters=2, linkage="single").fit_predict(table)
        table = table[halves == np.bincount(halves).argmax()]
    groups = DBSCAN(eps=0.5, min_samples=1).fit_predict(table)
    return np.asarray(table[groups == np.bincount(groups).argmax()][0] > 0)


class CrowdGuardReports:
    """Share of the server's reports that accuse a client."""

    name = "crowdguard"

    def score(self, observed: Observed) -> Floats:
        """Return the shares `(clients,)`."""
        if not len(observed):
            return np.zeros(0)
        return finite(reports(observed).mean(axis=0))
