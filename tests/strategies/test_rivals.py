"""Published defences as strategies: cases worked out by hand, and rounds with real ClientApps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, FedMedian
from torch import nn

from fl_shield.baselines.observed import Observed
from fl_shield.cohort import ClientUpdate, Cohort
from fl_shield.errors import ConfigurationError, StateError
from fl_shield.judge.verdict import Decision
from fl_shield.models.state import state_arrays
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.simulations.composing import compose_config
from fl_shield.simulations.federation import build
from fl_shield.simulations.settings import settings_from
from fl_shield.strategies import (
    AlignIns,
    CrowdGuard,
    DeepSight,
    FedDefender,
    Flame,
    Flare,
    FLDetector,
    FLTrust,
    FoolsGold,
    Mesas,
    NormClipping,
    Rflbat,
    Rival,
    RobustLearningRate,
    WeakDP,
)
from fl_shield.strategies.deepsight import accepted, apart
from fl_shield.strategies.fldetector import outstanding
from fl_shield.training.local import LocalTraining
from tests._loopback_grid import LoopbackGrid
from tests.strategies._rounds import (
    InMemoryGrid,
    Weights,
    global_weights,
    honest_weights,
    make_model,
    run_round,
    to_record,
    train_reply,
)

NODES = [3, 5, 7, 9, 11]
PARAMETERS = ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]

MAKERS: dict[str, Callable[..., Rival]] = {
    "flame": Flame,
    "fltrust": FLTrust,
    "flare": Flare,
    "deepsight": lambda *args, **options: DeepSight(*args, num_noise=64, **options),
    "foolsgold": FoolsGold,
    "rlr": RobustLearningRate,
    "norm_clipping": NormClipping,
    "weak_dp": WeakDP,
    "rflbat": Rflbat,
    "alignins": AlignIns,
    "fldetector": FLDetector,
    "feddefender": FedDefender,
    "mesas": Mesas,
    "crowdguard": CrowdGuard,
}


def probes() -> ProbeSet:
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    return ProbeSet(inputs, torch.arange(8) % 2, 2)


def play(strategy: Rival, updates: dict[int, Weights], number: int = 1) -> Weights | None:
    """Run a round in which node n sends the global weights plus `updates[n]`."""
    reference = global_weights()

    def answer(messages: list[Message]) -> list[Message]:
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            moved = {
                name: np.asarray(array + updates[node].get(name, 0.0), array.dtype)
                for name, array in reference.items()
            }
            replies.append(train_reply(message, moved, num_examples=10 * node))
        return replies

    return run_round(strategy, number, reference, InMemoryGrid(list(updates)), answer)[0]


def random_updates(nodes: list[int], size: float = 0.1, seed: int = 0) -> dict[int, Weights]:
    rng = np.random.default_rng(seed)
    reference = global_weights()
    return {
        node: {
            name: np.asarray(size * rng.standard_normal(reference[name].shape), np.float32)
            for name in PARAMETERS
        }
        for node in nodes
    }


def vector(update: Weights) -> Any:
    return np.concatenate([np.ravel(update[name]) for name in PARAMETERS]).astype(np.float64)


def moved(result: Weights | None) -> Any:
    assert result is not None
    reference = global_weights()
    return vector({n: result[n].astype(np.float64) - reference[n] for n in PARAMETERS})


def build_rival(name: str, **options: Any) -> Rival:
    inner = FedAvg(min_available_nodes=1, min_train_nodes=1)
    return MAKERS[name](inner, make_model(), probes(), **options)


def test_norm_clipping_is_the_mean_of_the_clipped_updates() -> None:
    updates = random_updates(NODES)
    limit = 0.4
    strategy = NormClipping(FedAvg(), make_model(), probes(), max_norm=limit)
    rows = [vector(updates[node]) for node in NODES]
    expected = np.mean([row * min(1, limit / np.linalg.norm(row)) for row in rows], axis=0)
    np.testing.assert_allclose(moved(play(strategy, updates)), expected, atol=1e-6)


def test_weak_dp_adds_noise_of_the_given_size_to_parameters_only() -> None:
    strategy = WeakDP(FedAvg(), make_model(), probes(), noise=0.5)
    still: dict[int, Weights] = {node: {} for node in NODES}
    result = play(strategy, still)
    noise = moved(result)
    assert 0.25 < noise.std() < 0.75
    assert result is not None
    np.testing.assert_array_equal(result["1.running_mean"], global_weights()["1.running_mean"])
    again = WeakDP(FedAvg(), make_model(), probes(), noise=0.5)
    np.testing.assert_array_equal(moved(play(again, still)), noise)


def test_flame_drops_clips_and_averages() -> None:
    """Four models equally far from each other and one far from everybody."""
    size = vector(random_updates([3])[3]).size
    updates: dict[int, Weights] = {}
    for place, node in enumerate(NODES[:4]):
        flat = np.zeros(size)
        flat[12 + place] = 0.01 * (place + 1)
        updates[node] = unflatten(flat)
    far = np.zeros(size)
    far[:8] = 5.0
    updates[11] = unflatten(far)
    strategy = Flame(FedAvg(), make_model(), probes(), noise_factor=0.0)
    result = moved(play(strategy, updates))
    dropped = {v.client_id for v in strategy.last_verdicts if v.decision is Decision.DROP}
    assert 11 in dropped
    kept = [node for node in NODES if node not in dropped]
    limit = 0.03  # the median of .01 .02 .03 .04 and 14
    rows = [vector(updates[node]) for node in kept]
    expected = np.mean([row * min(1, limit / np.linalg.norm(row)) for row in rows], axis=0)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def unflatten(flat: Any) -> Weights:
    reference, parts, start = global_weights(), {}, 0
    for name in PARAMETERS:
        size = reference[name].size
        parts[name] = flat[start : start + size].reshape(reference[name].shape).astype(np.float32)
        start += size
    return parts


def test_flame_noise_is_lambda_times_the_median_norm() -> None:
    updates = random_updates(NODES)
    plan = Flame(FedAvg(), make_model(), probes(), noise_factor=0.01).decide(observe(updates))
    norms = [np.linalg.norm(vector(updates[node])) for node in NODES]
    assert plan.noise == pytest.approx(0.01 * np.median(norms), rel=1e-5)


def observe(updates: dict[int, Weights], **options: Any) -> Observed:
    reference: Weights = state_arrays(make_model())
    clients = []
    for node, update in updates.items():
        state = {
            name: np.asarray(array + update.get(name, 0.0), array.dtype)
            for name, array in reference.items()
        }
        clients.append(ClientUpdate(node, 10.0, lambda state=state: state))  # type: ignore[misc]
    return Observed(Cohort(1, reference, tuple(clients)), make_model(), probes(), **options)


def test_fltrust_is_the_published_sum() -> None:
    updates = random_updates(NODES)
    training = LocalTraining(learning_rate=0.5, batch_size=4)
    trusted = observe(updates, training=training).trusted_update
    strategy = FLTrust(FedAvg(), make_model(), probes(), training=training)
    total, weight = np.zeros_like(trusted), 0.0
    for node in NODES:
        row = vector(updates[node])
        score = max(row @ trusted / np.linalg.norm(row) / np.linalg.norm(trusted), 0.0)
        total += score * np.linalg.norm(trusted) / np.linalg.norm(row) * row
        weight += score
    np.testing.assert_allclose(moved(play(strategy, updates)), total / weight, atol=1e-5)


def test_fltrust_has_no_result_when_everybody_disagrees() -> None:
    training = LocalTraining(learning_rate=0.5)
    trusted = observe(random_updates([3]), training=training).trusted_update
    strategy = FLTrust(FedAvg(), make_model(), probes(), training=training)
    assert play(strategy, {node: unflatten(-trusted) for node in NODES}) is None
    assert all(v.decision is Decision.DROP for v in strategy.last_verdicts)


def test_fltrust_needs_labels() -> None:
    with pytest.raises(ConfigurationError, match="labels"):
        FLTrust(FedAvg(), make_model(), torch.randn(8, 4))


def test_flare_weights_sum_as_the_softmax_of_votes() -> None:
    plan = Flare(FedAvg(), make_model(), probes()).decide(observe(random_updates(NODES)))
    votes = -plan.scores
    assert votes.sum() == 5 * 3  # ⌊5 / 2 + ½⌋ votes each
    np.testing.assert_allclose(plan.weights, np.exp(votes) / np.exp(votes).sum())


def test_deepsight_accepts_by_share_of_suspicious_models() -> None:
    labels = np.array([0, 0, 0, 1, 1, -1, -1])
    suspicious = np.array([True, False, False, False, False, True, False])
    # Cluster 0 has a third, which is not below 1/3; noise is judged one by one.
    np.testing.assert_array_equal(
        accepted(labels, suspicious, 1 / 3), [False, False, False, True, True, False, True]
    )
    np.testing.assert_array_equal(apart(np.array([0, 1, 0])), [[0, 1, 0], [1, 0, 1], [0, 1, 0]])


def test_foolsgold_leaves_sybils_out_and_remembers() -> None:
    updates = random_updates(NODES)
    updates[9] = updates[11] = {n: 2 * a for n, a in updates[9].items()}
    strategy = FoolsGold(FedAvg(), make_model(), probes())
    play(strategy, updates)
    dropped = {v.client_id for v in strategy.last_verdicts if v.decision is Decision.DROP}
    assert dropped == {9, 11}
    row = vector(updates[3])
    np.testing.assert_allclose(strategy.history[3], row / max(1, np.linalg.norm(row)), atol=1e-6)
    play(strategy, updates, 2)
    np.testing.assert_allclose(
        strategy.history[3], 2 * row / max(1, np.linalg.norm(row)), atol=1e-6
    )


def test_rlr_turns_coordinates_without_agreement() -> None:
    size = vector(random_updates([3])[3]).size
    rows = {node: np.full(size, 0.1) for node in NODES}
    for node in NODES[:2]:
        rows[node][:7] = -0.1  # signs sum to 1 there, to 5 elsewhere
    strategy = RobustLearningRate(FedAvg(), make_model(), probes(), threshold=4)
    result = moved(play(strategy, {node: unflatten(row) for node, row in rows.items()}))
    average = np.average([rows[n] for n in NODES], axis=0, weights=NODES)
    np.testing.assert_allclose(result, np.where(np.arange(size) < 7, -average, average), atol=1e-6)


def test_alignins_keeps_the_ordinary_and_clips_to_their_median() -> None:
    updates = random_updates(NODES)
    strategy = AlignIns(FedAvg(), make_model(), probes())
    plan = strategy.decide(observe(updates))
    kept = plan.scores < 1
    np.testing.assert_array_equal(plan.weights > 0, kept)
    norms = np.array([np.linalg.norm(vector(updates[node])) for node in NODES])
    np.testing.assert_allclose(
        plan.factors, np.minimum(1, np.median(norms[kept]) / norms), rtol=1e-5
    )


def test_rflbat_drops_the_far_one_and_the_twins() -> None:
    nodes = list(range(1, 13))
    updates = random_updates(nodes, size=0.01)
    size = vector(updates[1]).size
    for node in (10, 11):
        updates[node] = unflatten(np.full(size, 0.3))
    updates[12] = unflatten(np.full(size, -500.0))
    plan = Rflbat(FedAvg(), make_model(), probes()).decide(observe(updates))
    assert (plan.weights[9:] == 0).all()
    assert plan.weights[:9].sum() >= 5


def test_fldetector_removes_the_inconsistent_for_good() -> None:
    strategy = FLDetector(FedAvg(), make_model(), probes(), window=3)
    rng = np.random.default_rng(0)
    size = vector(random_updates([3])[3]).size
    base = {node: 0.1 * rng.standard_normal(size) for node in range(1, 9)}
    for number in range(1, 7):
        rows = {n: row + 0.001 * rng.standard_normal(size) for n, row in base.items()}
        for node in (7, 8):
            rows[node] = rng.standard_normal(size)
        play(strategy, {n: unflatten(row) for n, row in rows.items()}, number)
        if number <= 3:
            assert not strategy.removed
    assert strategy.removed == {7, 8}
    play(strategy, {n: unflatten(row) for n, row in base.items()}, 7)
    dropped = {v.client_id for v in strategy.last_verdicts if v.decision is Decision.DROP}
    assert dropped == {7, 8}


def test_nobody_stands_out_of_equal_scores() -> None:
    assert not outstanding(np.full(6, 0.2)).any()
    np.testing.assert_array_equal(
        outstanding(np.array([0.1, 0.11, 0.1, 0.12, 0.9, 0.91])), [False] * 4 + [True] * 2
    )


def test_feddefender_cuts_the_most_accused() -> None:
    updates = random_updates(NODES, size=0.01)
    updates[7] = {"0.bias": np.full(3, -50.0, np.float32), "2.bias": np.full(2, -50.0, np.float32)}
    plan = FedDefender(FedAvg(), make_model(), probes()).decide(observe(updates))
    assert plan.scores.sum() == pytest.approx(1.0)
    assert plan.scores.argmax() == 2
    assert plan.weights[2] == 0.0
    np.testing.assert_array_equal(np.delete(plan.weights, 2), [10.0] * 4)


def test_mesas_leaves_out_whom_any_metric_prunes() -> None:
    """Fourteen alike, six in a single coordinate: of ordinary norm, of extraordinary maximum."""
    nodes = list(range(1, 21))
    updates = random_updates(nodes)
    length = float(np.mean([np.linalg.norm(vector(updates[node])) for node in nodes]))
    size = vector(updates[1]).size
    for node in nodes[14:]:
        updates[node] = unflatten(np.eye(size)[0] * length * (1 + 0.001 * node))
    strategy = Mesas(FedAvg(), make_model(), probes())
    result = moved(play(strategy, updates))
    kept = [v.client_id for v in strategy.last_verdicts if v.decision is Decision.KEEP]
    assert not set(kept) & set(nodes[14:])
    assert len(kept) >= 12
    expected = np.mean([vector(updates[node]) for node in kept], axis=0)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_crowdguard_leaves_out_whom_the_agreed_report_accuses() -> None:
    """Its own training is what honest clients send, a model that answers otherwise is not."""
    training = LocalTraining(learning_rate=0.1, epochs=2, batch_size=4)
    trusted = observe(random_updates([3]), training=training).trusted_update
    rng = np.random.default_rng(0)
    noise = 0.05 * np.linalg.norm(trusted) / np.sqrt(trusted.size)
    nodes = list(range(1, 13))
    rows = {n: trusted + noise * rng.standard_normal(trusted.size) for n in nodes}
    for node in (11, 12):
        rows[node] = -40 * trusted + noise * rng.standard_normal(trusted.size)
    strategy = CrowdGuard(FedAvg(), make_model(), probes(), num_reports=2, training=training)
    result = moved(play(strategy, {n: unflatten(row) for n, row in rows.items()}))
    dropped = {v.client_id for v in strategy.last_verdicts if v.decision is Decision.DROP}
    assert dropped == {11, 12}
    expected = np.mean([vector(unflatten(rows[node])) for node in nodes[:10]], axis=0)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_crowdguard_needs_labels() -> None:
    with pytest.raises(ConfigurationError, match="CrowdGuard trains on the server's samples"):
        CrowdGuard(FedAvg(), make_model(), torch.randn(8, 4))


# --- what all of them share ---


def test_every_rival_has_a_configuration_that_builds_it() -> None:
    for name in MAKERS:
        config = settings_from(compose_config([f"defence={name}"])).config
        strategy = build(config["defence"], "defence")(
            FedAvg(), make_model(), probes(), audit_log=None
        )
        assert isinstance(strategy, Rival)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_small_rounds_end_with_finite_weights(name: str, count: int) -> None:
    result = play(build_rival(name), random_updates(list(range(1, count + 1))))
    if result is not None:
        assert all(np.isfinite(array).all() for array in result.values())
        assert list(result) == list(global_weights())


@pytest.mark.parametrize("name", MAKERS)
def test_unchanged_models_stay_what_they_are(name: str) -> None:
    options = {"noise": 0.0} if name == "weak_dp" else {}
    result = play(build_rival(name, **options), {node: {} for node in NODES})
    if result is not None:
        np.testing.assert_allclose(moved(result), 0.0, atol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_a_malformed_reply_is_turned_away(name: str, tmp_path: Path) -> None:
    strategy = build_rival(name, audit_log=tmp_path / "audit.jsonl")
    reference = global_weights()

    def answer(messages: list[Message]) -> list[Message]:
        replies = [
            train_reply(m, honest_weights(m.metadata.dst_node_id, reference)) for m in messages[1:]
        ]
        bad = {n: np.full_like(a, np.nan) if n == "0.bias" else a for n, a in reference.items()}
        return [train_reply(messages[0], bad), *replies]

    result, metrics = run_round(strategy, 1, reference, InMemoryGrid(NODES), answer)
    if result is not None:
        assert all(np.isfinite(array).all() for array in result.values())
        assert metrics is not None
        assert metrics["shield-rejected"] == 1.0
    rejected = [v for v in strategy.last_verdicts if v.decision is Decision.REJECT]
    assert len(rejected) == 1
    assert len((tmp_path / "audit.jsonl").read_text().splitlines()) == 5


def test_the_order_of_arrival_does_not_matter() -> None:
    updates = random_updates(NODES)
    turned = dict(reversed(updates.items()))
    for name in MAKERS:
        first, second = play(build_rival(name), updates), play(build_rival(name), turned)
        np.testing.assert_allclose(moved(first), moved(second), atol=1e-6, err_msg=name)


def test_a_strategy_that_does_not_average_is_refused() -> None:
    class Other(FedMedian):
        """Without the attribute that tells an average."""

        def __init__(self) -> None:
            super().__init__()
            del self.weighted_by_key

    with pytest.raises(ConfigurationError, match="number of examples"):
        Flame(Other(), make_model(), probes())


def test_aggregating_before_configuring_is_an_error_of_the_caller() -> None:
    with pytest.raises(StateError, match="configure_train first"):
        build_rival("flame").aggregate_train(1, [])


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("flame", {"noise_factor": -1}, "noise_factor"),
        ("flare", {"vote_share": 0, "temperature": 0}, "(?s)vote_share.*temperature"),
        ("rlr", {"threshold": -1}, "threshold"),
        ("norm_clipping", {"max_norm": 0}, "max_norm"),
        ("alignins", {"max_sign": 0}, "max_sign"),
        ("rflbat", {"first_limit": 0.5}, "first_limit"),
        ("fldetector", {"window": 0}, "window"),
        ("feddefender", {"num_inputs": 0}, "num_inputs"),
        ("crowdguard", {"num_reports": 0}, "num_reports"),
    ],
)
def test_impossible_settings_are_named(name: str, options: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        build_rival(name, **options)


def real_clients() -> ClientApp:
    """Return a ClientApp that trains on data of its own; client 0 boosts what it learned."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        model = make_model()
        arrays = message.content["arrays"]
        assert isinstance(arrays, ArrayRecord)
        model.load_state_dict(arrays.to_torch_state_dict())
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        generator = torch.Generator().manual_seed(client)
        inputs = torch.randn(32, 4, generator=generator)
        labels = (inputs[:, 0] > 0).long()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        if client == 0:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(before[name] - 20 * (parameter - before[name]))
        content = RecordDict(
            {
                "arrays": ArrayRecord(model.state_dict()),
                "metrics": MetricRecord({"num-examples": 32, "train-loss": 0.5}),
            }
        )
        return Message(content, reply_to=message)

    return app


@pytest.mark.parametrize("name", MAKERS)
def test_rounds_with_real_clients(name: str) -> None:
    inner = FedAvg(fraction_evaluate=0.0, min_available_nodes=6, min_train_nodes=6)
    strategy = MAKERS[name](inner, make_model(), probes())
    initial = to_record(global_weights())
    result = strategy.start(LoopbackGrid(real_clients(), 6), initial, num_rounds=3)
    model = make_model()
    model.load_state_dict(result.arrays.to_torch_state_dict())
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    assert len(strategy.last_verdicts) == 6
    assert strategy.last_missing == []
    assert strategy.last_seconds > 0
