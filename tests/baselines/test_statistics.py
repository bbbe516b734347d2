"""Each statistic against a case worked out by hand, a published formula or another library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import rbf_kernel
from torch import nn

from fl_shield.baselines import STATISTICS, Observed, Statistic, score_all
from fl_shield.baselines.alignins import median_z, principal_sign_alignment, temporal_alignment
from fl_shield.baselines.clustering import hdbscan_labels, two_means
from fl_shield.baselines.deepsight import ddifs, distance_to_centre, exceedings, neups, noise_inputs
from fl_shield.baselines.flame import majority_cluster, median_distance, model_cosine_distances
from fl_shield.baselines.flare import squared_mmd, trust, votes
from fl_shield.baselines.fltrust import trust_scores
from fl_shield.baselines.foolsgold import foolsgold_weights, pardoned_similarity
from fl_shield.baselines.multi_krum import krum_scores
from fl_shield.baselines.observed import cosines, products, squared_distances
from fl_shield.baselines.rflbat import distance_sums, principal_coordinates
from fl_shield.cohort import ClientUpdate, Cohort
from fl_shield.errors import ConfigurationError
from fl_shield.models.state import state_arrays
from fl_shield.probes.probe_set import ProbeSet

CLASSES, FEATURES = 3, 4


def make_model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(5, FEATURES),
            nn.ReLU(),
            nn.BatchNorm1d(FEATURES),
            nn.Linear(FEATURES, CLASSES),
        )


def make_probes(*, labels: bool = True) -> ProbeSet:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(12, 5, generator=generator)
    return ProbeSet(inputs, torch.arange(12) % CLASSES if labels else None, CLASSES)


def cohort_of(deltas: list[dict[str, Any]], model: nn.Module | None = None) -> Cohort:
    """Return a cohort whose clients move the named arrays by the given amounts."""
    reference = state_arrays(model or make_model())
    clients = []
    for number, delta in enumerate(deltas):
        state = {
            name: array + np.asarray(delta[name], array.dtype) if name in delta else array
            for name, array in reference.items()
        }
        clients.append(ClientUpdate(number, 10.0, lambda state=state: state))  # type: ignore[misc]
    return Cohort(1, reference, tuple(clients))


def noisy_cohort(count: int, seed: int = 0, size: float = 0.05) -> Cohort:
    rng = np.random.default_rng(seed)
    names = [n for n, _ in make_model().named_parameters()]
    shapes = {n: tuple(p.shape) for n, p in make_model().named_parameters()}
    return cohort_of(
        [{n: size * rng.standard_normal(shapes[n]) for n in names} for _ in range(count)]
    )


def observe(cohort: Cohort, **options: Any) -> Observed:
    return Observed(cohort, make_model(), make_probes(), **options)


def test_every_statistic_has_the_protocol_and_its_own_name() -> None:
    assert all(isinstance(s, Statistic) and STATISTICS[s.name] is s for s in STATISTICS.values())
    assert len(STATISTICS) == 14


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_all_are_finite_for_any_number_of_clients(count: int) -> None:
    scores = score_all(noisy_cohort(count), make_model(), make_probes())
    assert list(scores) == list(STATISTICS)
    for name, values in scores.items():
        assert values.shape == (count,), name
        assert np.isfinite(values).all(), name


@pytest.mark.parametrize("size", [0.0, 1e9])
def test_all_are_finite_for_updates_of_norm_zero_and_enormous_ones(size: float) -> None:
    scores = score_all(noisy_cohort(5, size=size), make_model(), make_probes())
    assert all(np.isfinite(values).all() for values in scores.values())


def test_the_order_of_the_clients_does_not_matter() -> None:
    cohort = noisy_cohort(8)
    order = np.random.default_rng(3).permutation(8)
    turned = Cohort(1, cohort.reference, tuple(cohort.clients[i] for i in order))
    left = score_all(cohort, make_model(), make_probes())
    right = score_all(turned, make_model(), make_probes())
    for name in left:
        np.testing.assert_allclose(left[name][order], right[name], atol=1e-9, err_msg=name)


def test_the_same_seed_gives_the_same_scores_and_the_model_stays_as_it_is() -> None:
    model, cohort = make_model(), noisy_cohort(5)
    before = state_arrays(model)
    first = score_all(cohort, model, make_probes(), seed=3)
    torch.rand(5)
    second = score_all(cohort, model, make_probes(), seed=3)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    for name, array in state_arrays(model).items():
        np.testing.assert_array_equal(array, before[name])
    assert model.training


def test_a_boosted_and_turned_update_stands_out() -> None:
    rng = np.random.default_rng(0)
    common = rng.standard_normal((FEATURES, 5))
    honest = [
        {"0.weight": 0.1 * common + 0.02 * rng.standard_normal((FEATURES, 5))} for _ in range(8)
    ]
    cohort = cohort_of([*honest, {"0.weight": -3.0 * common}])
    scores = score_all(cohort, make_model(), make_probes(), trusted_update=None)
    for name in ("norm", "multi_krum", "rflbat", "flame_cosine", "flame_cluster", "alignins"):
        assert scores[name][8] == scores[name].max() > scores[name].min(), name


def test_without_labels_what_trains_is_left_out_and_said_when_asked_for() -> None:
    probes = make_probes(labels=False)
    scores = score_all(noisy_cohort(3), make_model(), probes)
    assert set(STATISTICS) - set(scores) == {"fltrust", "crowdguard"}
    with pytest.raises(ConfigurationError, match="labels"):
        score_all(noisy_cohort(3), make_model(), probes, names=["fltrust"])
    with pytest.raises(ConfigurationError, match="labels"):
        score_all(noisy_cohort(3), make_model(), probes, names=["crowdguard"])


def test_an_unknown_name_is_named() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'flare'"):
        score_all(noisy_cohort(3), make_model(), make_probes(), names=["flair"])


def test_buffers_do_not_enter_an_update() -> None:
    moved = {"2.running_mean": np.full(FEATURES, 9.0), "2.num_batches_tracked": 5}
    observed = observe(cohort_of([moved, {"3.bias": [3.0, 0.0, 4.0]}]))
    np.testing.assert_allclose(observed.norms, [0.0, 5.0], rtol=1e-6)


def test_products_are_those_of_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32)
    exact = rows.astype(np.float64) @ rows.astype(np.float64).T
    monkeypatch.setattr("fl_shield.baselines.observed.CHUNK", 7)
    np.testing.assert_allclose(products(rows), exact, rtol=1e-12)
    distances = squared_distances(products(rows))
    difference = rows[1].astype(np.float64) - rows[2]
    assert distances[1, 2] == pytest.approx(difference @ difference)


def test_cosines_by_hand() -> None:
    gram = products(np.array([[1.0, 0.0], [3.0, 3.0], [0.0, 0.0]]))
    np.testing.assert_allclose(
        cosines(gram), np.array([[1, 0.5**0.5, 0], [0.5**0.5, 1, 0], [0, 0, 1]]), atol=1e-12
    )


def test_norm_by_hand() -> None:
    cohort = cohort_of([{"3.bias": [s, 0, 0]} for s in (1.0, 2.0, 5.0)])
    scores = score_all(cohort, make_model(), make_probes(), names=["norm"])
    np.testing.assert_allclose(scores["norm"], [1.0, 0.0, 3.0], rtol=1e-5)


def test_krum_by_hand() -> None:
    points = np.array([[0.0], [1.0], [3.0], [7.0], [20.0]])
    squared = squared_distances(products(points))
    # n = 5, f = 1: the two nearest. 0: 1 + 9; 1: 1 + 4; 3: 4 + 9; 7: 16 + 36; 20: 169 + 289.
    np.testing.assert_allclose(krum_scores(squared), [10, 5, 13, 52, 458], atol=1e-9)
    np.testing.assert_allclose(krum_scores(squared, 2), [1, 1, 4, 16, 169], atol=1e-9)


def test_fltrust_by_hand() -> None:
    updates = np.array([[1.0, 1.0], [-1.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    norms = np.linalg.norm(updates, axis=1)
    scores = trust_scores(updates, norms, np.array([5.0, 0.0]))
    np.testing.assert_allclose(scores, [2**-0.5, 0.0, 0.0, 1.0])


def test_the_servers_update_is_that_of_its_own_training() -> None:
    observed = observe(noisy_cohort(3))
    trusted = observed.trusted_update
    assert trusted.shape == observed.reference.shape
    assert np.linalg.norm(trusted) > 0
    np.testing.assert_array_equal(trusted, observe(noisy_cohort(3)).trusted_update)
    given_one = observe(noisy_cohort(3), trusted_update=np.ones_like(trusted))
    assert given_one.trusted_update.sum() == trusted.size


def test_foolsgold_by_hand() -> None:
    # Two sybils point one way, an honest client leans a little towards them.
    cosine = cosines(products(np.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])))
    np.testing.assert_allclose(pardoned_similarity(cosine), [1.0, 1.0, 0.36], atol=1e-12)
    # 1 - [1, 1, .36] = [0, 0, .64]; over the largest: [0, 0, 1 -> .99]; logit: [0, 0, 1].
    np.testing.assert_allclose(foolsgold_weights(cosine), [0.0, 0.0, 1.0])
    np.testing.assert_array_equal(foolsgold_weights(np.ones((3, 3))), np.zeros(3))


def test_alignins_by_hand() -> None:
    updates = np.array([[3.0, 2.0, 0.1, 0.1], [1.0, 2.0, -0.1, 0.1], [-4.0, 3.0, 0.1, 0.1]])
    # Principal signs: + + + +. The two largest coordinates: (+ +), (+ +), (- +).
    np.testing.assert_allclose(principal_sign_alignment(updates, 0.5), [1.0, 1.0, 0.5])
    norms = np.linalg.norm(updates, axis=1)
    tda = temporal_alignment(updates, norms, np.array([2.0, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(tda, updates[:, 0] / norms)
    np.testing.assert_allclose(
        median_z(np.array([1.0, 1.0, 0.5])), np.array([0, 0, 0.5 / np.std([1, 1, 0.5])])
    )
    np.testing.assert_array_equal(median_z(np.full(4, 0.1)), np.zeros(4))


def test_flame_distances_are_those_of_the_whole_models() -> None:
    observed = observe(noisy_cohort(4))
    models = observed.reference.astype(np.float64) + observed.updates
    unit = models / np.linalg.norm(models, axis=1, keepdims=True)
    np.testing.assert_allclose(model_cosine_distances(observed), 1 - unit @ unit.T, atol=1e-12)


def test_flame_keeps_the_majority_and_all_when_nobody_is_close() -> None:
    distances = np.full((7, 7), 10.0)
    distances[:5, :5] = 1.0  # five equally far from each other, two far from everybody
    np.fill_diagonal(distances, 0.0)
    np.testing.assert_array_equal(majority_cluster(distances), [True] * 5 + [False] * 2)
    assert majority_cluster(np.zeros((4, 4))).all()
    np.testing.assert_allclose(
        median_distance(np.array([[0.0, 1, 3], [1, 0, 2], [3, 2, 0]])), [2.0, 1.5, 2.5]
    )


def test_mmd_is_the_unbiased_estimator() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((6, 3)), rng.standard_normal((6, 3)) + 1
    mmd = squared_mmd([torch.from_numpy(a), torch.from_numpy(b)], width=1.5)
    gamma = 1 / (2 * 1.5**2)
    same = [(k.sum() - 6) / 30 for k in (rbf_kernel(a, a, gamma), rbf_kernel(b, b, gamma))]
    expected = sum(same) - 2 * rbf_kernel(a, b, gamma).mean()
    assert mmd[0, 1] == pytest.approx(expected)
    assert mmd[0, 0] == 0.0


def test_flare_votes_by_hand() -> None:
    places = np.array([0.0, 1.0, 3.0, 9.0])
    # Two votes each: 0 -> 1, 3; 1 -> 0, 3; 3 -> 1, 0; 9 -> 3, 1.
    counts = votes(np.abs(places[:, None] - places[None, :]))
    np.testing.assert_array_equal(counts, [2, 3, 3, 0])
    np.testing.assert_allclose(trust(counts), np.exp(counts) / np.exp(counts).sum())


def test_neup_by_hand() -> None:
    weight = np.array([[[1.0, -1.0], [0.0, 0.0]]])
    bias = np.array([[1.0, -4.0]])
    # Energies 3 and 4: squares 9 and 16 of 25.
    np.testing.assert_allclose(neups(weight, bias), [[0.36, 0.64]])
    assert (neups(np.zeros((1, 2, 2)), np.zeros((1, 2))) == 0).all()
    # Two classes: the limit is half of the largest.
    np.testing.assert_array_equal(exceedings(np.array([[0.36, 0.64], [0.2, 0.8]])), [2, 1])


def test_the_head_is_read_from_the_update() -> None:
    delta = np.arange(12.0).reshape(CLASSES, FEATURES)
    weight, bias = observe(cohort_of([{"3.weight": delta, "3.bias": [1, 2, 3]}])).head()
    np.testing.assert_allclose(weight[0], delta, atol=1e-5)
    np.testing.assert_allclose(bias[0], [1, 2, 3], atol=1e-6)


def test_ddif_of_an_unchanged_model_is_one_and_follows_the_bias() -> None:
    observed = observe(cohort_of([{}, {"3.bias": [50.0, 0.0, 0.0]}]))
    values = ddifs(observed, seed=0, num_noise=1500)
    np.testing.assert_allclose(values[0], 1.0, rtol=1e-9)
    # All probability goes to class 0: 1 / p_0 on average, and nothing is left of the others.
    noise = torch.rand((1000, 5), generator=torch.Generator().manual_seed(0))
    base = torch.softmax(make_model().eval()(noise), dim=1)[:, 0].detach()
    assert values[1, 0] == pytest.approx(float((1 / base).mean()), rel=0.02)
    assert values[1, 1:].max() < 1e-6


def test_noise_has_the_form_of_the_probes() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = {
        "input_ids": torch.tensor([[5, 6], [7, 0]] * 2),
        "attention_mask": torch.ones(4, 2).long(),
    }
    noise = noise_inputs(tokens, 9, generator)
    assert isinstance(noise, dict)
    assert noise["input_ids"].shape == (9, 2)
    assert set(noise["input_ids"].unique().tolist()) <= {0, 5, 6, 7}
    images = noise_inputs(torch.zeros(4, 1, 3, 3), 200, generator)
    assert isinstance(images, torch.Tensor)
    assert 0 <= float(images.min()) < 0.05
    assert 0.95 < float(images.max()) <= 1


def test_pca_is_that_of_scikit_learn() -> None:
    updates = np.random.default_rng(0).standard_normal((7, 30))
    own = principal_coordinates(products(updates))
    other = PCA(2).fit_transform(updates)
    np.testing.assert_allclose(np.abs(own), np.abs(other), atol=1e-8)
    np.testing.assert_allclose(distance_sums(own), distance_sums(other), atol=1e-8)


def test_two_means_finds_the_best_cut() -> None:
    np.testing.assert_array_equal(
        two_means(np.array([1.0, 9.0, 1.5, 8.0, 2.0])), [False, True, False, True, False]
    )
    assert not two_means(np.array([3.0])).any()


def test_distance_to_the_median() -> None:
    np.testing.assert_allclose(
        distance_to_centre(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])), [0, 5, 0]
    )


@settings(max_examples=25, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(1, 9), st.just(3)), elements=st.floats(-10, 10)))
def test_clusters_label_every_client(points: Any) -> None:
    distances = np.sqrt(squared_distances(products(points)))
    labels = hdbscan_labels(distances, len(points) // 2 + 1)
    assert labels.shape == (len(points),)
    assert set(labels.tolist()) <= {-1, 0}  # more than half the clients: at most one cluster


class TiedText(nn.Module):
    """A text model called with named tensors, whose head shares the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.head = nn.Linear(4, 9, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        mask = attention_mask[..., None].float()
        hidden = (self.embedding(input_ids) * mask).sum(1) / mask.sum(1)
        logits: torch.Tensor = self.head(hidden)
        return logits


def test_named_inputs_and_tied_weights_are_taken() -> None:
    model = TiedText()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(9, (8, 5), generator=generator)
    probes = ProbeSet({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    rng = np.random.default_rng(0)
    deltas = []
    for _ in range(5):
        move = 0.1 * rng.standard_normal((9, 4))
        deltas.append({"embedding.weight": move, "head.weight": move})
    scores = score_all(cohort_of(deltas, model), model, probes)
    assert set(STATISTICS) - set(scores) == {"fltrust", "crowdguard"}
    for name, values in scores.items():
        assert values.shape == (5,), name
        assert np.isfinite(values).all(), name
