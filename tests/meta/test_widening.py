"""A detector goes on to learn from columns that it did not have, and begins where it was."""

import numpy as np
import torch

from fl_shield.detector.features import FeatureSpec, features_of, fit_features
from fl_shield.detector.meta_detector import MetaDetector
from fl_shield.detector.set_network import SetNetwork
from fl_shield.meta import MetaTraining, train_detector
from fl_shield.meta.calibrate import log_odds
from fl_shield.meta.course import columns_mask
from fl_shield.meta.training import EXPERT_READS
from fl_shield.meta.widening import joined, widen_detector, widened
from fl_shield.metrics.detection import auroc
from fl_shield.shadow.table import EpisodeTable

OLD, NEW = ("b_faint", "d_noise"), ("a_clear", "b_faint", "c_more", "d_noise")
QUICK = MetaTraining(networks=2, steps=120, rounds=8, hidden=16, dropout=0.0, column_dropout=0.0)


def episode(seed: int, names: tuple[str, ...], clients: int = 10) -> EpisodeTable:
    """Return a round whose attackers show faintly in one column, and clearly in a newer one."""
    rng = np.random.default_rng(seed)
    malicious = np.arange(clients) < 3
    columns = {
        "b_faint": rng.standard_normal(clients) + 1.0 * malicious,
        "d_noise": rng.standard_normal(clients),
        "a_clear": rng.standard_normal(clients) + 5.0 * malicious,
        "c_more": rng.standard_normal(clients),
    }
    raw = np.stack([columns[name] for name in names], axis=1)
    return EpisodeTable("ab"[seed % 2], f"run-{seed}", 1, names, raw, malicious,
                        np.arange(clients), {})  # fmt: skip


def test_a_widened_network_gives_what_it_gave() -> None:
    tables = [episode(seed, OLD) for seed in range(20)]
    networks, spec = train_detector(tables, QUICK)
    wide = joined(spec, fit_features([episode(seed, NEW) for seed in range(20)]))
    assert wide.names == NEW
    assert [wide.units[NEW.index(name)] for name in OLD] == list(spec.units)
    for network in networks:
        grown = widened(network, spec, wide).eval()
        table = episode(99, NEW)
        few, many = (
            torch.from_numpy(features_of(s, table.names, table.raw))[None] for s in (spec, wide)
        )
        assert torch.allclose(grown(many), network(few), atol=1e-5)


def test_a_widened_expert_reads_what_it_read() -> None:
    names = ("answer_top@raw/searched", "b_faint")
    wide = FeatureSpec(("a_clear", *names), (1.0, 1.0, 1.0))
    old = FeatureSpec(names, (1.0, 1.0))
    expert = SetNetwork(old.num_features, hidden=8, reads=columns_mask(old, EXPERT_READS)).eval()
    grown = widened(expert, old, wide).eval()
    assert grown.reads is not None
    assert torch.equal(grown.reads, columns_mask(wide, EXPERT_READS))
    raw = np.random.default_rng(0).standard_normal((6, 3))
    few = torch.from_numpy(features_of(old, names, raw[:, 1:]))[None]
    many = torch.from_numpy(features_of(wide, wide.names, raw))[None]
    assert torch.allclose(grown(many), expert(few), atol=1e-5)


def test_what_is_new_is_learned_and_the_start_left_alone() -> None:
    start = MetaDetector(*train_detector([episode(seed, OLD) for seed in range(20)], QUICK))
    fresh = [episode(seed, NEW) for seed in range(100, 120)]
    before = [log_odds(start, table) for table in fresh]
    grown = MetaDetector(*widen_detector(start, [episode(seed, NEW) for seed in range(30)], QUICK))
    assert grown.columns == NEW
    areas = [
        np.mean([auroc(log_odds(d, t).tolist(), t.malicious.tolist()) or 0.0 for t in fresh])
        for d in (start, grown)
    ]
    assert areas[0] < 0.9 < 0.98 < areas[1]
    for table, known in zip(fresh, before, strict=True):
        assert np.array_equal(log_odds(start, table), known)
