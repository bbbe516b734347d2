"""The detector of target classes: features by hand, learning, and its two files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fl_shield.detector.features import FeatureSpec
from fl_shield.errors import ConfigurationError, StateError
from fl_shield.scanning.models.class_detector import (
    FILES,
    ClassDetector,
    class_features,
    load_class_detector,
    save_class_detector,
)
from fl_shield.scanning.models.class_learning import (
    ClassTable,
    learn,
    unseen_scores,
    with_threshold,
)


def tables(count: int = 60, seed: int = 0) -> list[ClassTable]:
    """Return models of two data sets of other units; targets are high in the first column."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        group, scale = ("a", 1.0) if number % 2 else ("b", 5.0)
        raw = rng.normal(size=(int(rng.integers(2, 11)), 2)) * scale
        target = int(rng.integers(len(raw))) if number % 4 < 2 else None
        if target is not None:
            raw[target, 0] += 12.0 * scale
        found.append(ClassTable(group, ("high", "chance"), raw, target))
    return found


def test_features_by_hand() -> None:
    spec = FeatureSpec(("x",), (2.0,))
    found = class_features(spec, ("other", "x"), np.array([[9.0, 1.0], [9.0, 3.0], [9.0, 11.0]]))
    # The median is 3, the MAD 2 · 1.4826, and a tenth of the unit is added to it.
    relative = [np.log1p(d / (2 * 1.4826 + 0.2)) for d in (2.0, 0.0, 8.0)]
    absolute = [np.log1p(d / 2.0) for d in (2.0, 0.0, 8.0)]
    assert found[:, 0] == pytest.approx([-relative[0], 0.0, relative[2]], rel=1e-5)
    assert found[:, 1] == pytest.approx([-absolute[0], 0.0, absolute[2]], rel=1e-5)
    assert found[:, 2] == pytest.approx([0.5, 1.5, 5.5])


def test_columns_that_are_missing_or_broken_count_for_nothing() -> None:
    spec = FeatureSpec(("gone", "x"), (1.0, 1.0))
    found = class_features(spec, ("x",), np.array([[np.nan], [np.inf]]))
    assert np.isfinite(found).all()
    assert (found[:, [0, 2, 4]] == 0).all()


def test_targets_of_unseen_data_sets_are_found() -> None:
    unseen = unseen_scores(tables())
    assert set(unseen) == {"a", "b"}
    for scores, truth in unseen.values():
        clean = [s for s, t in zip(scores, truth, strict=True) if not t]
        bad = [s for s, t in zip(scores, truth, strict=True) if t]
        assert np.median(bad) > max(clean)
    detector = with_threshold(learn(tables()), unseen)
    fresh = tables(seed=1)
    flags = [float(detector.score(t.names, t.raw).max()) > 0 for t in fresh]
    right = [flag == (t.target is not None) for flag, t in zip(flags, fresh, strict=True)]
    assert np.mean(right) > 0.75
    for table in fresh:
        if table.target is not None and len(table.raw) > 3:
            assert int(detector.score(table.names, table.raw).argmax()) == table.target


def test_what_learning_refuses() -> None:
    with pytest.raises(ConfigurationError, match="with and without a backdoor, got '0 with'"):
        learn([ClassTable("a", ("x",), np.zeros((3, 1)))])
    with pytest.raises(ConfigurationError, match="two data sets or more"):
        unseen_scores([t for t in tables() if t.group == "a"])


def test_files_come_back_and_damage_is_named(tmp_path: Path) -> None:
    detector = ClassDetector(FeatureSpec(("x",), (1.0,)), np.array([1.0, 2.0, 3.0]), 0.5)
    folder = save_class_detector(tmp_path / "kept", detector)
    again = load_class_detector(folder)
    assert again.spec == detector.spec
    assert again.weights.tolist() == [1.0, 2.0, 3.0]
    assert again.bias == 0.5
    with pytest.raises(ConfigurationError, match=f"a folder with {FILES.card}"):
        load_class_detector(tmp_path)
    content = (folder / FILES.weights).read_bytes()
    (folder / FILES.weights).write_bytes(content[:-1] + b"x")
    with pytest.raises(StateError, match="SHA-256"):
        load_class_detector(folder)
    card = json.loads((folder / FILES.card).read_text(encoding="utf-8"))
    (folder / FILES.card).write_text(json.dumps(card | {"version": 9}), encoding="utf-8")
    with pytest.raises(StateError, match="has version 9"):
        load_class_detector(folder)
    with pytest.raises(ConfigurationError, match=r"of shape \(3,\)"):
        ClassDetector(FeatureSpec(("x",), (1.0,)), np.zeros(2), 0.0)
