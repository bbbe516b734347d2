"""The set network: equivariance, padding, and an independent computation of the whole."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fl_shield.detector.features import FeatureSpec, features_of
from fl_shield.detector.set_network import SetNetwork


def network(seed: int = 0, features: int = 9, heads: int = 4) -> SetNetwork:
    torch.manual_seed(seed)
    net = SetNetwork(features, hidden=16, heads=heads)
    if heads:
        torch.nn.init.normal_(net.others.out_proj.weight)  # zero before training
    return net.eval()


def rounds(rows: int, clients: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, clients, 9, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("clients", [1, 2, 3, 20, 1000])
def test_scores_follow_their_clients(clients: int) -> None:
    net, features = network(), rounds(2, clients)
    order = torch.randperm(clients, generator=torch.Generator().manual_seed(1))
    found = net(features)
    assert found.shape == (2, clients)
    assert bool(torch.isfinite(found).all())
    torch.testing.assert_close(net(features[:, order]), found[:, order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clients", [1, 2, 3, 20])
def test_padding_changes_nothing(clients: int) -> None:
    net, features = network(), rounds(2, clients)
    padded = torch.cat([features, 1e3 * rounds(2, 5, seed=3)], dim=1)
    present = torch.arange(clients + 5).expand(2, -1) < clients
    found = net(padded, present)[:, :clients]
    torch.testing.assert_close(found, net(features), rtol=1e-4, atol=1e-5)


def test_a_round_of_padding_only_is_finite() -> None:
    found = network()(rounds(1, 3), torch.zeros(1, 3, dtype=torch.bool))
    assert bool(torch.isfinite(found).all())


def test_rounds_do_not_touch_each_other() -> None:
    net, features = network(), rounds(3, 6)
    torch.testing.assert_close(net(features)[1:2], net(features[1:2]), rtol=1e-4, atol=1e-5)


def by_hand_compared(net: SetNetwork, embedded: torch.Tensor) -> torch.Tensor:
    """Multi-head attention of Vaswani et al., 2017, section 3.2, added to what attends."""
    normed = torch.nn.functional.layer_norm(embedded, (16,))
    parts = net.others.in_proj_weight.chunk(3), net.others.in_proj_bias.chunk(3)
    query, key, value = (normed @ w.T + b for w, b in zip(*parts, strict=True))
    heads = []
    for head in range(4):
        own = slice(4 * head, 4 * head + 4)
        weights = (query[:, own] @ key[:, own].T / np.sqrt(4)).softmax(dim=1)
        heads.append(weights @ value[:, own])
    mixed: torch.Tensor = net.others.out_proj(torch.cat(heads, dim=1))
    return embedded + mixed


def test_the_score_is_head_of_embedding_and_cohort() -> None:
    net, features = network(), rounds(1, 4)
    with torch.no_grad():
        embedded = list(by_hand_compared(net, torch.stack([net.encoder(r) for r in features[0]])))
        logits = [net.attention(e) for e in embedded]
        pools = []
        for pool in range(2):
            weights = np.exp([float(value[pool]) for value in logits])
            weights /= weights.sum()
            pools.append(sum(float(w) * e for w, e in zip(weights, embedded, strict=True)))
        mean = sum(embedded) / 4
        summary = torch.cat([mean, *pools, torch.tensor([np.log(4.0)]).float()])
        wanted = torch.stack([net.head(torch.cat([e, summary]))[0] for e in embedded])
        torch.testing.assert_close(net(features)[0], wanted, rtol=1e-4, atol=1e-5)


def test_accomplices_are_seen_by_each_other_only_with_attention() -> None:
    features = rounds(1, 6)
    for heads, seen in ((4, True), (0, False)):
        net = network(heads=heads)
        embedded = net.encoder(features)
        other = embedded.clone()
        other[:, 5] += 3.0
        first, second = (net.compare(embedded, cohort)[0, 0] for cohort in (embedded, other))
        assert torch.equal(first, second) is not seen


def test_training_begins_without_the_others() -> None:
    net = SetNetwork(9, hidden=16).eval()
    embedded = net.encoder(rounds(1, 6))
    torch.testing.assert_close(net.compare(embedded, embedded), embedded)


def test_the_cohort_matters() -> None:
    net, features = network(), rounds(1, 6)
    other = features.clone()
    other[:, 5] += 3.0
    assert not torch.allclose(net(features)[0, 0], net(other)[0, 0])


@settings(max_examples=50)
@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 8), st.just(3)),
        elements=st.floats(allow_nan=True, allow_infinity=True),
    )
)
def test_every_table_has_finite_scores(raw: np.ndarray) -> None:
    spec = FeatureSpec(("a", "b", "c"), (1e-6, 1.0, 1e3))
    features = features_of(spec, ("a", "b", "c"), raw)
    with torch.no_grad():
        assert bool(torch.isfinite(network(features=12)(torch.from_numpy(features)[None])).all())
