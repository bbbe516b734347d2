"""Detection rates by hand, and AUROC against scikit-learn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fl_shield.errors import ConfigurationError
from fl_shield.metrics.detection import auroc, detection_rates


@pytest.mark.parametrize(
    ("flagged", "malicious", "rates"),
    [
        ([1, 0, 0, 1, 0], [1, 1, 0, 0, 0], (1 / 2, 1 / 3)),
        ([1, 1], [1, 1], (1.0, None)),
        ([0, 1], [0, 0], (None, 1 / 2)),
        ([], [], (None, None)),
    ],
)
def test_rates_by_hand(
    flagged: list[bool], malicious: list[bool], rates: tuple[float | None, float | None]
) -> None:
    assert detection_rates(flagged, malicious) == rates


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=20))
def test_auroc_equals_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    scores, truth = [float(score) for score, _ in pairs], [flag for _, flag in pairs]
    if len(set(truth)) < 2:
        assert auroc(scores, truth) is None
    else:
        assert auroc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))


def test_lengths_must_agree() -> None:
    with pytest.raises(ConfigurationError, match=r"`len\(flagged\)`.* 1 updates, got 2"):
        detection_rates([True, False], [True])
    with pytest.raises(ConfigurationError, match=r"`len\(scores\)`"):
        auroc([1.0], [])
