"""Spectral Signatures and Activation Clustering against hand-computed cases and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from fl_shield.errors import ConfigurationError
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.scanning.activation_clustering import ActivationClustering, reduce, two_clusters
from fl_shield.scanning.protocol import Held, Samples
from fl_shield.scanning.spectral import SpectralSignatures, most_suspicious, spectral_scores
from tests.scanning._tasks import IMAGES, Identity, held_images, images


def poisoned_set(clean: int = 60, poisoned: int = 8) -> tuple[Samples, np.ndarray]:
    """Return a training set whose class 1 holds samples far off in one direction, and truth."""
    inputs, labels = images(2 * clean, seed=3)
    far = images(2 * poisoned, seed=4)[0][::2].clone()
    far[:, :, 3, :] = 1.0
    both = torch.cat([inputs, far])
    labels = torch.cat([labels, torch.ones(len(far), dtype=torch.int64)])
    truth = np.r_[np.zeros(2 * clean), np.ones(len(far))].astype(bool)
    return Samples(both, labels), truth


def test_spectral_scores_by_hand() -> None:
    # Mean (2, 0); centred x is −2, −1, 0, 3, centred y tiny: the direction is the x axis.
    points = np.array([[0.0, 0.1], [1.0, -0.1], [2.0, -0.1], [5.0, 0.1]])
    assert spectral_scores(points) == pytest.approx([4.0, 1.0, 0.0, 9.0], abs=0.1)


def test_spectral_scores_are_squared_first_principal_components() -> None:
    points = np.random.default_rng(0).normal(size=(30, 5)) * [3, 1, 1, 1, 1]
    component = PCA(n_components=1).fit_transform(points)[:, 0]
    np.testing.assert_allclose(spectral_scores(points), component**2)


def test_spectral_scores_of_equal_samples_are_zero() -> None:
    assert spectral_scores(np.ones((5, 3))).tolist() == [0.0] * 5


def test_one_and_a_half_times_the_share_is_removed_from_each_class() -> None:
    scores = np.array([5.0, 1.0, 4.0, 2.0, 9.0, 8.0, 7.0, 6.0])
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    removed = most_suspicious(scores, labels, 1 / 3)  # int(1.5 · 4 / 3) = 2 of each
    assert np.flatnonzero(removed).tolist() == [0, 2, 4, 5]


def test_clusters_by_hand() -> None:
    points = np.array([[0.0], [0.1], [0.2], [5.0]])
    assert two_clusters(points).tolist() == [False, False, False, True]
    assert two_clusters(np.zeros((4, 2))).tolist() == [False] * 4


@pytest.mark.parametrize("reduction", ["pca", "ica"])
def test_reduction_keeps_to_the_rank(reduction: str) -> None:
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(20, 2)) @ rng.normal(size=(2, 7))
    assert reduce(flat, reduction, 10).shape == (20, 2)  # type: ignore[arg-type]
    assert reduce(np.ones((5, 3)), reduction, 10).tolist() == [[0.0]] * 5  # type: ignore[arg-type]


def test_a_cluster_scores_its_silhouette() -> None:
    samples, truth = poisoned_set()
    scanner = ActivationClustering(reduction="pca").fit(held_images(24, Identity()))
    scores = scanner.score(samples)
    assert samples.labels is not None
    members = samples.labels.numpy() == 1
    points = samples.inputs.flatten(1).double().numpy()[members]  # Identity: activations = pixels
    wanted = silhouette_score(PCA(n_components=10).fit_transform(points), truth[members])
    assert scores[truth] == pytest.approx(np.full(truth.sum(), wanted), rel=1e-3)
    assert (scores[members & ~truth] == 0).all()


@pytest.mark.parametrize(
    "scanner", [SpectralSignatures(), ActivationClustering(), ActivationClustering(reduction="pca")]
)
def test_poison_far_off_is_found(scanner: SpectralSignatures | ActivationClustering) -> None:
    samples, truth = poisoned_set()
    suspected = scanner.fit(held_images(80, Identity())).score(samples) > scanner.threshold
    assert suspected[truth].all()
    assert suspected[~truth].mean() <= 0.1


@pytest.mark.parametrize("scanner", [SpectralSignatures(), ActivationClustering()])
def test_bad_input_is_one_sentence(scanner: SpectralSignatures | ActivationClustering) -> None:
    inputs, labels = images(24)
    with pytest.raises(ConfigurationError, match="not fitted"):
        type(scanner)().score(Samples(inputs, labels))
    with pytest.raises(ConfigurationError, match="needs labelled clean samples"):
        scanner.fit(Held(clean=ProbeSet(inputs), spec=IMAGES, model=Identity()))
    with pytest.raises(ConfigurationError, match="at least 19 clean samples"):
        type(scanner)().fit(held_images(16, Identity()))
    fitted = scanner.fit(held_images(24, Identity()))
    with pytest.raises(ConfigurationError, match="needs its labels"):
        fitted.score(Samples(inputs))
    with pytest.raises(ConfigurationError, match="two classes or more, got 1"):
        fitted.score(Samples(inputs, torch.zeros_like(labels)))


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigurationError, match=r"Unknown scanner.reduction 'pcs'.*'pca'"):
        ActivationClustering(reduction="pcs")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="largest_share"):
        ActivationClustering(largest_share=0.7)
