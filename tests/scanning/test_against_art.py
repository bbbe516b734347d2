"""The scanners against the Adversarial Robustness Toolbox, where it is installed."""

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("art", reason="pip install adversarial-robustness-toolbox")

from art.defences.detector.poison import (  # type: ignore[import-not-found,unused-ignore]
    SpectralSignatureDefense,
)
from art.defences.detector.poison.activation_defence import (  # type: ignore[import-not-found,unused-ignore]
    cluster_activations,
)
from art.estimators.classification import (  # type: ignore[import-not-found,unused-ignore]
    PyTorchClassifier,
)

from fl_shield.probes.probe_set import ProbeSet
from fl_shield.scanning.activation_clustering import reduce, two_clusters
from fl_shield.scanning.protocol import Held, Samples
from fl_shield.scanning.spectral import spectral_scores
from fl_shield.scanning.strip import Strip
from tests.scanning._tasks import IMAGES


def trained() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    labels = torch.arange(80) % 2
    inputs = torch.rand(80, 1, 4, 4)
    inputs[labels == 1, :, :2] += 0.5
    inputs[70:, :, 3, 3], labels[70:] = 3.0, 1
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(80):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model.eval(), inputs, labels


def wrapped(model: nn.Module) -> PyTorchClassifier:
    return PyTorchClassifier(model, nn.CrossEntropyLoss(), (1, 4, 4), 2, clip_values=(0.0, 3.0))


def test_clusters_are_those_of_art() -> None:
    rng = np.random.default_rng(0)
    one = np.r_[rng.normal(size=(30, 12)), rng.normal(size=(8, 12)) + 4.0]
    other = np.r_[rng.normal(size=(25, 12)), rng.normal(size=(5, 12)) - 5.0]
    clusters, reduced = cluster_activations([one, other], nb_dims=5, reduce="PCA")
    for members, art, points in zip((one, other), clusters, reduced, strict=True):
        ours = reduce(members, "pca", 5)
        np.testing.assert_allclose(np.abs(ours), np.abs(points), atol=1e-6)  # signs are free
        assigned = np.asarray(art).astype(bool)
        assert (two_clusters(ours) == (assigned if assigned.mean() < 0.5 else ~assigned)).all()


def test_spectral_scores_are_those_of_art() -> None:
    activations = np.random.default_rng(0).normal(size=(20, 6))
    centred = activations - activations.mean(axis=0)
    scores = SpectralSignatureDefense.spectral_signature_scores(centred)
    # ART returns the norm of the projection, the paper its square.
    np.testing.assert_allclose(spectral_scores(activations), np.ravel(scores) ** 2, rtol=1e-6)


def test_strip_separates_as_arts_does() -> None:
    from art.defences.transformer.poisoning import (  # type: ignore[import-not-found,unused-ignore]
        STRIP,
    )

    model, inputs, _ = trained()
    clean, triggered = inputs[:40], inputs[70:]
    art = STRIP(wrapped(nn.Sequential(model, nn.Softmax(dim=1))))()
    art.mitigate(clean.numpy())
    held = Held(clean=ProbeSet(clean), spec=IMAGES, model=model)
    ours = Strip(overlays=20, weight=1.0).fit(held)
    scores = ours.score(Samples(torch.cat([clean, triggered])))
    assert scores[40:].mean() > scores[:40].mean()
    assert np.isfinite(art.entropy_threshold)
