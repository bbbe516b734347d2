"""Experts overrule where they are sure, acquit nobody, and see nothing but their own columns."""

import math
from typing import cast

import numpy as np
import pytest
import torch
from torch import nn

from fl_shield.descriptors.standardise import standardise
from fl_shield.descriptors.table import DescriptorTable
from fl_shield.detector.ensemble import MARGIN, SHARPNESS, joint_log_odds
from fl_shield.detector.features import CHANNELS, FeatureSpec
from fl_shield.detector.meta_detector import Calibration, MetaDetector
from fl_shield.detector.set_network import SetNetwork
from fl_shield.meta.course import columns_mask

NAMES = ("a", "b@raw/searched", "c")
SPEC = FeatureSpec(NAMES, (1.0, 0.5, 2.0))


def networks(experts: int, readers: int = 2) -> list[SetNetwork]:
    torch.manual_seed(0)
    width = CHANNELS * len(NAMES)
    reads = columns_mask(SPEC, ("b@*",))
    found = [SetNetwork(width, hidden=8, dropout=0.0) for _ in range(readers)]
    return found + [SetNetwork(width, hidden=8, dropout=0.0, reads=reads) for _ in range(experts)]


def table(raw: np.ndarray, names: tuple[str, ...] = NAMES) -> DescriptorTable:
    return DescriptorTable(names, raw, standardise(raw))


def said(readers: list[float], experts: list[float]) -> float:
    """Return what networks say together that say these log-odds."""
    nets = networks(len(experts), len(readers))
    odds = {id(n): v for n, v in zip(nets, [*readers, *experts], strict=True)}
    found = joint_log_odds(nets, lambda n: torch.tensor([odds[id(n)]], dtype=torch.float64))
    return float(found)


def test_an_expert_that_is_sure_overrules() -> None:
    by_hand = math.log(math.exp(-2.0) + math.exp(SHARPNESS * (2.5 - MARGIN)))
    assert said([-3.0, -1.0], [2.0, 3.0]) == pytest.approx(by_hand)
    assert said([-3.0, -1.0], [2.0, 3.0]) > 3.0


def test_an_expert_that_is_not_acquits_nobody() -> None:
    assert said([2.0], [-8.0]) == pytest.approx(2.0, abs=1e-6)
    assert said([-3.0], [-8.0]) == pytest.approx(-3.0, abs=1e-6)


def test_networks_of_one_kind_are_averaged() -> None:
    assert said([1.0, -2.0], []) == pytest.approx(-0.5)
    assert said([], [1.0, -2.0]) == pytest.approx(-0.5)


def test_experts_are_heard_where_phrases_were_searched() -> None:
    raw = np.random.default_rng(0).standard_normal((6, 3))
    nets = networks(2)
    with torch.no_grad():
        for expert in nets[2:]:  # who are sure of everybody
            cast("nn.Linear", expert.head[-1]).bias.add_(10.0)
    both, readers = MetaDetector(nets, SPEC), MetaDetector(nets[:2], SPEC)
    assert (both.score(table(raw)) > readers.score(table(raw)) + 5.0).all()
    image = table(raw[:, [0, 2]], ("a", "c"))
    np.testing.assert_array_equal(both.score(image), readers.score(image))
    np.testing.assert_array_equal(both.contributions(image), readers.contributions(image))


def test_an_expert_sees_its_own_columns_only() -> None:
    raw = np.random.default_rng(0).standard_normal((6, 3))
    other = raw.copy()
    other[:, [0, 2]] = np.random.default_rng(1).standard_normal((6, 2))
    expert = MetaDetector(networks(1, 0), SPEC)
    np.testing.assert_array_equal(expert.score(table(raw)), expert.score(table(other)))
    parts = expert.contributions(table(raw))
    assert not parts[:, [0, 2]].any()
    assert parts[:, 1].any()


def test_contributions_add_up_where_experts_are_heard() -> None:
    raw = np.random.default_rng(4).standard_normal((21, 3))
    raw[20] = np.median(raw[:20], axis=0)
    nets = networks(2)
    with torch.no_grad():  # experts that have much to say
        for expert in nets[2:]:
            last = cast("nn.Linear", expert.head[-1])
            last.weight.mul_(20.0)
            last.bias.add_(MARGIN)
    detector = MetaDetector(nets, SPEC, Calibration(scale=0.01))
    scores = detector.score(table(raw))
    readers = MetaDetector(nets[:2], SPEC, Calibration(scale=0.01)).score(table(raw))
    assert np.abs(scores - readers).max() > 100.0
    distance = scores - scores[20]
    parts = detector.contributions(table(raw)).sum(axis=1)
    np.testing.assert_allclose(parts, distance, atol=0.03 * np.abs(distance).max())
