"""Partitions are disjoint, complete and seeded; Dirichlet skew grows as alpha falls."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_shield.data.flower_partition import flower_partition
from fl_shield.data.partition import Parts, dirichlet, iid
from fl_shield.errors import ConfigurationError

LABELS = np.random.default_rng(0).integers(0, 10, 1000)


def _assert_deals_all(parts: Parts, num_samples: int, min_size: int) -> None:
    assert sorted(np.concatenate(parts).tolist()) == list(range(num_samples))
    assert min(len(part) for part in parts) >= min_size
    assert all(part.dtype == np.int64 for part in parts)


def _skew(labels: NDArray[np.int64], parts: Parts) -> float:
    """Mean total variation distance of the clients' label shares from the overall ones."""
    whole = np.bincount(labels, minlength=10) / len(labels)
    shares = [np.bincount(labels[part], minlength=10) / len(part) for part in parts]
    return float(np.mean([0.5 * np.abs(share - whole).sum() for share in shares]))


@given(
    num_clients=st.integers(1, 30),
    min_size=st.integers(1, 4),
    alpha=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**32 - 1),
)
def test_dirichlet_deals_every_sample_once(
    num_clients: int, min_size: int, alpha: float, seed: int
) -> None:
    labels = LABELS[:120]
    parts = dirichlet(labels, num_clients, seed, alpha, min_size)
    assert len(parts) == num_clients
    _assert_deals_all(parts, 120, min_size)


@given(num_clients=st.integers(1, 50), seed=st.integers(0, 2**32 - 1))
def test_iid_deals_every_sample_once_and_evenly(num_clients: int, seed: int) -> None:
    parts = iid(LABELS, num_clients, seed)
    _assert_deals_all(parts, 1000, 1)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_skew_falls_with_alpha_towards_iid() -> None:
    skews = [_skew(LABELS, dirichlet(LABELS, 10, 3, alpha, 2)) for alpha in (0.05, 0.5, 5.0, 1e4)]
    assert all(low > high + 0.02 for low, high in pairwise(skews))
    assert skews[0] > 0.6  # nearly one class a client
    assert skews[-1] < 0.05


def test_class_shares_follow_the_dirichlet_law() -> None:
    # A client's share of a class has mean 1/n and variance (n-1)/(n^2 (n alpha + 1)), n clients.
    n, alpha = 5, 1.0
    labels = np.zeros(1000, dtype=np.int64)
    sizes = [[len(part) for part in dirichlet(labels, n, s, alpha, 1)] for s in range(300)]
    shares = np.array(sizes) / 1000
    variance = (n - 1) / (n**2 * (n * alpha + 1))
    assert np.allclose(shares.mean(axis=0), 1 / n, atol=4 * np.sqrt(variance / 300))
    assert np.isclose(shares.var(), variance, rtol=0.2)


def test_seed_decides() -> None:
    first, again = dirichlet(LABELS, 5, 7), dirichlet(LABELS, 5, 7)
    other = dirichlet(LABELS, 5, 8)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_alpha_must_be_a_positive_number(alpha: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"partition\.alpha.*above 0, got {alpha}"):
        dirichlet(LABELS, 5, 0, alpha)


def test_too_many_clients_are_named() -> None:
    with pytest.raises(ConfigurationError, match="num_clients` to be at most 125, got 126"):
        dirichlet(LABELS, 126, 0, min_size=8)
    with pytest.raises(ConfigurationError, match=r"at most 2, got 3.*partition\.min_size"):
        iid(LABELS[:2], 3, 0)


@pytest.mark.parametrize(("num_clients", "min_size"), [(0, 1), (-1, 1), (5, 0)])
def test_counts_must_be_positive(num_clients: int, min_size: int) -> None:
    with pytest.raises(ConfigurationError, match="1 or more"):
        iid(LABELS, num_clients, 0, min_size)


@pytest.mark.parametrize(
    ("name", "settings", "max_classes"),
    [
        ("ShardPartitioner", {"num_shards_per_partition": 2}, 4),
        (
            "PathologicalPartitioner",
            {"num_classes_per_partition": 2, "class_assignment_mode": "first-deterministic"},
            2,
        ),
        ("DirichletPartitioner", {"alpha": 100.0}, 10),
        ("IidPartitioner", {}, 10),
    ],
)
def test_flwr_datasets_partitioners_serve(
    name: str, settings: dict[str, object], max_classes: int
) -> None:
    pytest.importorskip("flwr_datasets")
    labels = np.arange(200) % 10
    parts = flower_partition(labels, 10, 0, name, **settings)
    _assert_deals_all(parts, 200, 1)
    assert max(len(np.unique(labels[part])) for part in parts) <= max_classes


def test_unknown_partitioner_is_named_with_the_nearest() -> None:
    pytest.importorskip("flwr_datasets")
    with pytest.raises(ConfigurationError, match="Did you mean 'ShardPartitioner'"):
        flower_partition(LABELS, 5, 0, "ShardPartitoner")


def test_settings_a_partitioner_refuses_are_named() -> None:
    pytest.importorskip("flwr_datasets")
    with pytest.raises(ConfigurationError, match="PathologicalPartitioner cannot deal 1000"):
        flower_partition(LABELS, 5, 0, "PathologicalPartitioner", num_classes_per_partition=99)
    with pytest.raises(ConfigurationError, match=r"IidPartitioner cannot deal.*colour"):
        flower_partition(LABELS, 5, 0, "IidPartitioner", colour=1)
