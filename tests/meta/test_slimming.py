"""A slim detector starts as its teacher without some columns, and learns to do without them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fl_shield.descriptors.table import DescriptorTable
from fl_shield.detector.features import CHANNELS, fit_features
from fl_shield.detector.meta_detector import Calibration, MetaDetector
from fl_shield.detector.set_network import SetNetwork
from fl_shield.errors import ConfigurationError
from fl_shield.meta import MetaTraining, train_detector
from fl_shield.meta.slimming import reduced, slim_detector
from fl_shield.shadow.table import EpisodeTable

NAMES = ("echo@4/clean", "loud@raw/clean", "noise@4/noise")
QUICK = MetaTraining(networks=2, steps=150, rounds=8, hidden=16, dropout=0.0, column_dropout=0.0)


def episode(seed: int, clients: int = 8) -> EpisodeTable:
    """Return a round in which attackers are louder, and all are echoed."""
    rng = np.random.default_rng(seed)
    malicious = np.arange(clients) < 2
    loud = rng.standard_normal(clients) + 3.0 * malicious
    raw = np.stack([loud + 0.1 * rng.standard_normal(clients), loud, rng.random(clients)], axis=1)
    return EpisodeTable("ab"[seed % 2], f"run-{seed}", 1, NAMES, raw, malicious,
                        np.arange(clients), {})  # fmt: skip


def odds(detector: MetaDetector, table: EpisodeTable, hidden: str = "") -> NDArray[np.float64]:
    kept = [i for i, name in enumerate(table.names) if name != hidden]
    names, raw = tuple(table.names[i] for i in kept), table.raw[:, kept]
    return detector.score(DescriptorTable(names, raw, raw))


def test_a_reduced_network_is_the_whole_one_where_columns_are_missing() -> None:
    torch.manual_seed(0)
    network = SetNetwork(CHANNELS * 3, hidden=16).double().eval()
    slim = reduced(network, 3, [0, 2]).double().eval()
    features = torch.randn(2, 5, CHANNELS * 3, dtype=torch.float64)
    by_column = features.reshape(2, 5, CHANNELS, 3)
    by_column[..., 1] = 0.0
    few = by_column[..., [0, 2]].flatten(2)
    assert torch.allclose(slim(few), network(by_column.flatten(2)), atol=1e-6)


def test_the_pupil_gives_what_its_teacher_gives_without_what_was_left_out() -> None:
    tables = [episode(seed) for seed in range(40)]
    networks, spec = train_detector(tables, QUICK)
    teacher = MetaDetector(networks, spec, Calibration(offset=0.5, threshold=2.0), name="teacher")
    before = odds(teacher, tables[0])
    pupil = slim_detector(teacher, tables, replace(QUICK, steps=300, leave_out=("*@raw/*",)))
    assert pupil.columns == ("echo@4/clean", "noise@4/noise")
    assert pupil.calibration == teacher.calibration
    fresh = [episode(seed) for seed in range(100, 110)]
    apart = np.mean([np.abs(odds(pupil, t) - odds(teacher, t)) for t in fresh])
    masked = np.mean(
        [np.abs(odds(teacher, t, hidden="loud@raw/clean") - odds(teacher, t)) for t in fresh]
    )
    assert apart < 0.5 * masked
    assert np.array_equal(odds(teacher, tables[0]), before)  # the teacher is left alone
    again = slim_detector(teacher, tables, replace(QUICK, steps=300, leave_out=("*@raw/*",)))
    assert np.array_equal(odds(again, fresh[0]), odds(pupil, fresh[0]))


def test_refuses_to_leave_nothing_and_to_learn_from_nothing() -> None:
    tables = [episode(0)]
    spec = fit_features(tables)
    teacher = MetaDetector([SetNetwork(spec.num_features, 8)], spec)
    with pytest.raises(ConfigurationError, match="leave_out"):
        slim_detector(teacher, tables, replace(QUICK, leave_out=("*",)))
    with pytest.raises(ConfigurationError, match="tables"):
        slim_detector(teacher, [], QUICK)
