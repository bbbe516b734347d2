"""What the policy passes on, against cases counted by hand."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.graded_weights import graded, lost_by_oddity, means, passed_on
from fl_shield.detector.meta_detector import Calibration
from fl_shield.judge.policy import Policy
from fl_shield.shadow.table import EpisodeTable


def episode(run: str, number: int, malicious: list[bool], harm: list[float]) -> EpisodeTable:
    count = len(malicious)
    return EpisodeTable("a", run, number, ("x",), np.zeros((count, 1)), np.array(malicious),
                        np.arange(count), {"harm": harm})  # fmt: skip


def test_shares_that_pass_are_counted_by_kind_and_by_harm() -> None:
    tables = [
        episode("attacked", 1, [True, True, False, False], [0.3, 0.1, 0.5, -0.1]),
        episode("clean", 1, [False] * 4, [0.0] * 4),
    ]
    scores = [np.array([9.0, -9.0, 9.0, -9.0]), np.array([9.0, -9.0, -9.0, -9.0])]
    found = passed_on(tables, scores, Policy("drop", max_drop_share=0.5))
    assert found == {
        "passed_malicious": 0.5,
        "passed_harm": pytest.approx(0.25),
        "lost_benign": 0.5,
        "lost_clean": 0.25,
    }
    nobody = passed_on(tables[1:], scores[1:], Policy("drop"))
    assert (nobody["passed_malicious"], nobody["passed_harm"]) == (None, None)
    assert means([found, nobody]) == {
        "passed_malicious": 0.5,
        "passed_harm": pytest.approx(0.25),
        "lost_benign": 0.5,
        "lost_clean": 0.25,
    }


def test_losses_are_counted_by_what_is_odd_about_honest_clients() -> None:
    table = episode("a", 1, [True, False, False, False], [0.1] * 4)
    oddities = {"oddities": ["none", "none", "single_class", "single_class"]}
    table = replace(table, facts={**table.facts, **oddities})
    scores = [np.array([9.0, -9.0, 9.0, -9.0])]
    found = lost_by_oddity([table], scores, Policy("drop", max_drop_share=0.5))
    assert found["none"] == {"lost": 0.0, "updates": 1}
    assert found["single_class"] == {"lost": 0.5, "updates": 2}
    assert found["tiny"] == {"lost": None, "updates": 0}


def test_rounds_of_a_federation_are_judged_in_their_order_by_one_judge() -> None:
    # A little suspicion adds up; the later round comes first in the list.
    kinds = [True, *[False] * 9]
    tables = [episode("a", number, kinds, [0.1] * 10) for number in (2, 1)]
    policy = graded(Calibration(offset=0.0, scale=2.0, threshold=9.0, even=-1.0))
    assert policy.even_score == -0.5
    scores = [np.array([0.1, *[-9.0] * 9])] * 2
    first = passed_on(tables[1:], scores[1:], policy)["passed_malicious"]
    both = passed_on(tables, scores, policy)["passed_malicious"]
    assert first is not None
    assert both is not None
    assert both < first < 1.0
