"""Meta-training: the loss by hand, one step of every outer loop by hand, exact resumption."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fl_shield.descriptors.table import DescriptorTable
from fl_shield.detector.features import CHANNELS, fit_features
from fl_shield.detector.meta_detector import MetaDetector
from fl_shield.detector.set_network import SetNetwork
from fl_shield.errors import ConfigurationError, StateError
from fl_shield.meta import ALGORITHMS, MetaTraining, train_detector, train_network
from fl_shield.meta import training as training_module
from fl_shield.meta.algorithms import OUTER, inner_parameters
from fl_shield.meta.calibrate import calibrate_across, cautious, platt_scaling, unseen_log_odds
from fl_shield.meta.episodes import Episodes, hide_columns
from fl_shield.meta.objective import detection_loss
from fl_shield.meta.training import EXPERT_READS, members
from fl_shield.shadow.table import EpisodeTable

NAMES = ("loud", "quiet", "noise")
QUICK = MetaTraining(networks=1, steps=60, rounds=8, tasks=2, inner_steps=2, hidden=16)


def episode(seed: int, domain: str = "a", clients: int = 8, attackers: int = 2) -> EpisodeTable:
    """Return a round in which attackers are 3 louder, in a run of three rounds."""
    rng = np.random.default_rng(seed)
    malicious = np.arange(clients) < attackers
    raw = rng.standard_normal((clients, len(NAMES)))
    raw[malicious, 0] += 3.0
    order = rng.permutation(clients)
    return EpisodeTable(
        domain, f"{domain}-{seed // 3}", seed % 3 + 1, NAMES, raw[order], malicious[order],
        np.arange(clients), {},
    )  # fmt: skip


def episodes(count: int = 30) -> list[EpisodeTable]:
    return [episode(s, "ab"[s % 2], clients=5 + s % 4, attackers=s % 3) for s in range(count)]


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_the_loss_of_a_hand_computed_round() -> None:
    odds = torch.tensor([[1.0, -1.0, 0.5, 99.0]])
    malicious = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    present = torch.tensor([[True, True, True, False]])
    entropy = 0.5 * softplus(-1.0) + 0.25 * (softplus(-1.0) + softplus(0.5))
    ranked = (softplus(-2.0) + softplus(-0.5)) / 2
    top = 0.5 * softplus(0.5 - 1.0)  # one of the two honest clients is a tenth of them, or more
    found = detection_loss(odds, malicious, present).item()
    assert found == pytest.approx(entropy + ranked + top)


def test_attackers_are_to_exceed_the_oddest_honest_clients_of_any_round() -> None:
    odds, malicious = torch.zeros(3, 10), torch.zeros(3, 10)
    present = torch.ones(3, 10, dtype=torch.bool)
    malicious[0, 0], odds[0, 0] = 1.0, 2.0
    calm = detection_loss(odds, malicious, present).item()
    odds[2, 4] = 3.0  # of 29 honest clients the three highest count
    odd = detection_loss(odds, malicious, present).item()
    entropy = 0.05 * (softplus(3.0) - softplus(0.0)) / 3
    top = 0.5 * (softplus(1.0) - softplus(-2.0)) / 3
    assert odd - calm == pytest.approx(entropy + top, abs=1e-6)


def test_a_round_of_one_kind_has_no_pairs() -> None:
    odds, present = torch.tensor([[0.3, -0.2]]), torch.ones(1, 2, dtype=torch.bool)
    found = detection_loss(odds, torch.zeros(1, 2), present).item()
    assert found == pytest.approx(0.25 * (softplus(0.3) + softplus(-0.2)))


@given(st.integers(0, 1000), st.floats(0.0, 0.9))
def test_columns_are_hidden_in_all_their_channels(seed: int, share: float) -> None:
    features = torch.ones(4, 5, CHANNELS * 7)
    hidden = hide_columns(features, share, torch.Generator().manual_seed(seed))
    channels = hidden.reshape(4, 5, CHANNELS, 7)
    assert torch.equal(channels[:, 0, 0], channels[:, -1, -1])
    if share == 0.0:
        assert torch.equal(hidden, features)


@given(st.integers(0, 100))
def test_support_and_query_are_of_one_federation(seed: int) -> None:
    tables = episodes()
    drawn = Episodes(tables, fit_features(tables))
    support, query = drawn.draw_task(np.random.default_rng(seed), 8)
    assert len({tables[i].run for i in [*support, *query]}) == 1
    assert support
    assert query
    runs = [t.run for t in tables]
    if runs.count(runs[support[0]]) > 1:
        assert not set(support) & set(query)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_outer_step_by_hand(algorithm: str) -> None:
    """Without dropout, an independent replay of the draws gives the same gradient."""
    tables = episodes()
    drawn = Episodes(tables, fit_features(tables))
    settings = replace(QUICK, algorithm=algorithm, dropout=0.0, column_dropout=0.0, inner_steps=1)
    torch.manual_seed(3)
    network = SetNetwork(CHANNELS * len(NAMES), hidden=8, dropout=0.0)
    reference = copy.deepcopy(network)
    OUTER[algorithm](network, drawn, settings, np.random.default_rng(5), torch.Generator())
    rng = np.random.default_rng(5)
    wanted = [torch.zeros_like(p) for p in reference.parameters()]

    def slopes(of: SetNetwork, rounds: list[int]) -> tuple[torch.Tensor, ...]:
        batch = drawn.batch(rounds)
        loss = detection_loss(of(batch.features, batch.present), batch.malicious, batch.present)
        return torch.autograd.grad(loss, list(of.parameters()))

    if algorithm == "multi_task":
        wanted = list(slopes(reference, drawn.draw(rng, settings.rounds)))
    else:
        for _ in range(settings.tasks):
            support, query = drawn.draw_task(rng, settings.rounds)
            inner = slopes(reference, support if algorithm != "reptile" else [*support, *query])
            moved = copy.deepcopy(reference)
            last = {id(p) for p in inner_parameters(moved, head_only=True)}
            with torch.no_grad():
                for parameter, slope in zip(moved.parameters(), inner, strict=True):
                    if algorithm != "anil" or id(parameter) in last:
                        parameter.sub_(settings.inner_rate * slope)
            if algorithm == "reptile":
                parts = [
                    p - m for p, m in zip(reference.parameters(), moved.parameters(), strict=True)
                ]
            else:
                parts = list(slopes(moved, query))
            wanted = [
                w + part.detach() / settings.tasks for w, part in zip(wanted, parts, strict=True)
            ]
    for parameter, slope in zip(network.parameters(), wanted, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, slope, rtol=1e-4, atol=1e-6)


def test_experts_learn_from_rounds_that_have_their_columns() -> None:
    names = ("loud", "answer_clear@raw/searched", "noise")
    text = [replace(table, names=names) for table in episodes()]
    settings = replace(QUICK, experts=1)
    assert len(train_detector(episodes(), settings)[0]) == 1  # nothing for experts to read
    networks, spec = train_detector(episodes() + text, settings)
    assert [network.reads is None for network in networks] == [True, False]
    expert = members(settings, spec)[1]
    assert (expert.steps, expert.seed, expert.reads) == (20, 1, EXPERT_READS)
    alone = train_network(text, spec, expert)
    for found, wanted in zip(networks[1].parameters(), alone.parameters(), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_learns_who_is_loud(algorithm: str) -> None:
    rate = 0.05 if algorithm == "reptile" else 0.01
    settings = replace(QUICK, algorithm=algorithm, steps=120, inner_rate=rate)
    networks, spec = train_detector(episodes(), settings)
    detector = MetaDetector(networks, spec)
    hits = 0
    for seed in range(1000, 1020):
        table = episode(seed, "c", clients=10, attackers=2)
        scores = detector.score(DescriptorTable(table.names, table.raw, table.raw))
        hits += int(table.malicious[np.argsort(scores)[-2:]].sum())
    assert hits >= 34  # of 40; chance finds 8


def test_the_same_seed_gives_the_same_networks_and_leaves_torch_alone() -> None:
    tables = episodes()
    torch.manual_seed(1)
    first = torch.rand(1)
    torch.manual_seed(1)
    one, _ = train_detector(tables, replace(QUICK, networks=2, steps=5))
    assert torch.equal(torch.rand(1), first)
    two, _ = train_detector(tables, replace(QUICK, networks=2, steps=5))
    for a, b in zip(one, two, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(next(one[0].parameters()), next(one[1].parameters()))


class TakenAwayError(Exception):
    """Stands for a machine that was taken away."""


@pytest.mark.parametrize("algorithm", ["multi_task", "fomaml"])
def test_an_interrupted_training_ends_with_the_same_weights(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_module, "CHECKPOINT_EVERY", 10)
    tables = episodes()
    spec = fit_features(tables)
    settings = replace(QUICK, algorithm=algorithm, steps=40)
    whole = train_network(tables, spec, settings)

    def stop(step: int, _loss: float) -> None:
        if step == 25:
            raise TakenAwayError

    file = tmp_path / "network.safetensors"
    with pytest.raises(TakenAwayError):
        train_network(tables, spec, settings, stop, file)
    steps: list[int] = []
    resumed = train_network(tables, spec, settings, lambda step, _: steps.append(step), file)
    assert steps[0] == 21
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    tables = episodes()
    spec = fit_features(tables)
    file = tmp_path / "network.safetensors"
    train_network(tables, spec, replace(QUICK, steps=3), checkpoint=file)
    with pytest.raises(StateError, match="other settings"):
        train_network(tables, spec, replace(QUICK, steps=4), checkpoint=file)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(StateError, match="damaged"):
        train_network(tables, spec, replace(QUICK, steps=3), checkpoint=file)


def test_bad_settings_are_named_all_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"reptile") as caught:
        MetaTraining(algorithm="reptil", steps=0, dropout=1.0)
    assert "meta_training.steps" in str(caught.value)
    assert "meta_training.dropout" in str(caught.value)


def test_rounds_without_attackers_teach_nothing() -> None:
    with pytest.raises(ConfigurationError, match="rounds with attackers"):
        train_detector([episode(0, attackers=0)], QUICK)


def test_the_threshold_is_about_data_sets_not_seen() -> None:
    """Each data set is scored by a detector without it; the quantile is over all of them."""
    tables = episodes(30)
    asked: list[str] = []
    networks, spec = train_detector(tables, QUICK)

    def without(domain: str) -> MetaDetector:
        asked.append(domain)
        return MetaDetector(networks, spec)

    rounds = unseen_log_odds(tables, without)
    assert asked == ["a", "b"]
    for domain, scored in rounds.items():
        own = [t for t in tables if t.domain == domain]
        assert [bad.tolist() for _, bad in scored] == [t.malicious.tolist() for t in own]
    calibration = calibrate_across(tables, QUICK, false_alarms=0.1)
    folds = {d: [t for t in tables if t.domain != d] for d in "ab"}
    found = unseen_log_odds(tables, lambda d: MetaDetector(*train_detector(folds[d], QUICK)))
    benign = [np.concatenate([s[~bad] for s, bad in scored]) for scored in found.values()]
    quantiles = [np.sort(v)[math.ceil((len(v) + 1) * 0.9) - 1] for v in benign]
    assert (1.0 / calibration.scale, calibration.even) == pytest.approx(platt_scaling(found))
    assert calibration.offset + 2.0 * calibration.scale == pytest.approx(max(quantiles), rel=1e-4)
    with pytest.raises(ConfigurationError, match="two data sets or more"):
        calibrate_across([t for t in tables if t.domain == "a"], QUICK)


def test_one_odd_data_set_does_not_decide_alone() -> None:
    honest = np.zeros(100, dtype=bool)
    shifts = {"a": 0.0, "b": 7.0, "c": 90.0, "d": 3.0}
    odd = {name: [(np.arange(100.0) + shift, honest)] for name, shift in shifts.items()}
    found = cautious(odd, false_alarms=0.05)
    only_b = cautious({"b": odd["b"]}, false_alarms=0.05)
    assert found.offset == pytest.approx(only_b.offset)
    three = cautious({name: odd[name] for name in "abc"}, false_alarms=0.05)
    assert three.offset - found.offset == pytest.approx(90.0 - 7.0, abs=0.01)


def test_log_odds_become_those_of_unseen_data_sets() -> None:
    """Two Gaussians at ±m/2 of unit variance have log-odds m · x: shifted and stretched here."""
    rng = np.random.default_rng(3)
    truth = np.arange(4000) % 20 < 5  # a quarter: the kinds weigh the same whatever their shares
    true_odds = 2.0 * (rng.standard_normal(len(truth)) + np.where(truth, 1.0, -1.0))
    told = true_odds * 0.5 - 0.8
    scored = [(told[i : i + 20], truth[i : i + 20]) for i in range(0, len(told), 20)]
    slope, even = platt_scaling({"a": scored[:150], "b": scored[150:]})
    assert slope == pytest.approx(2.0, rel=0.1)
    assert even == pytest.approx(-0.8, abs=0.05)


def test_log_odds_stay_as_they_are_where_nothing_says_otherwise() -> None:
    benign = (np.array([0.0, 1.0, 2.0]), np.zeros(3, dtype=bool))
    wrong = (np.array([0.0, 1.0, 2.0]), np.array([True, False, False]))
    assert platt_scaling({"a": [benign]}) == (1.0, 0.0)
    assert platt_scaling({"a": [wrong]}) == (1.0, 0.0)


def test_a_detector_does_not_read_what_is_left_out() -> None:
    settings = replace(QUICK, steps=2, leave_out=("q*", "other"))
    networks, spec = train_detector(episodes(), settings)
    assert spec.names == ("loud", "noise")
    assert MetaDetector(networks, spec).columns == ("loud", "noise")
    with pytest.raises(ConfigurationError, match="leave_out"):
        train_detector(episodes(), replace(QUICK, leave_out=("*",)))
    with pytest.raises(ConfigurationError, match="leave_out"):
        replace(QUICK, leave_out="loud")  # type: ignore[arg-type]
