"""The judge: evidence adds up and drains, thresholds have hysteresis, order does not matter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shield.descriptors.table import DescriptorTable
from fl_shield.errors import ConfigurationError, StateError
from fl_shield.judge.evidence import EvidenceBook
from fl_shield.judge.judge import Judge
from fl_shield.judge.policy import Policy
from fl_shield.judge.posterior import chances
from fl_shield.judge.verdict import Decision, Verdict

scores_lists = st.lists(st.floats(-10, 10), min_size=1, max_size=12)


def table(count: int) -> DescriptorTable:
    values = np.tile(np.array([[1.0, -2.0]]), (count, 1))
    return DescriptorTable(("a", "b"), values, values)


def judged(judge: Judge, scores: list[float], number: int = 1) -> list[Verdict]:
    rows = table(len(scores))
    return judge.judge(number, range(1, len(scores) + 1), np.array(scores), rows, rows.standardised)


def test_evidence_follows_its_formula() -> None:
    judge = Judge(Policy(), EvidenceBook(decay=0.5, lower=-3.0, upper=5.0))
    evidence = [judged(judge, [s], n)[0].evidence for n, s in enumerate([1.0, 1.0, -9.0, 9.0], 1)]
    assert evidence == pytest.approx([1.0, 1.5, -3.0, 5.0])


def test_excluded_clients_come_back_below_the_lower_threshold_only() -> None:
    policy = Policy(threshold=99.0, evidence_threshold=2.0, readmission_threshold=1.0)
    judge = Judge(policy, EvidenceBook(decay=1.0))
    decisions = [
        judged(judge, [score, 0.0, 0.0], number)[0].decision
        for number, score in enumerate([1.5, 1.0, -1.0, -0.6], 1)  # 1.5, 2.5, 1.5, 0.9
    ]
    assert decisions == [Decision.KEEP, Decision.DROP, Decision.DROP, Decision.KEEP]


@given(scores_lists, st.floats(0.0, 0.99))
def test_no_more_than_the_share_is_dropped(scores: list[float], share: float) -> None:
    verdicts = judged(Judge(Policy(max_drop_share=share)), scores)
    dropped = sum(verdict.decision is Decision.DROP for verdict in verdicts)
    assert dropped <= share * len(scores)


@given(scores_lists, st.randoms(use_true_random=False))
def test_the_order_of_clients_does_not_matter(scores: list[float], random) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(scores)))
    random.shuffle(order)
    rows = table(len(scores))
    one = Judge().judge(1, range(len(scores)), np.array(scores), rows, rows.standardised)
    other = Judge().judge(1, order, np.array(scores)[order], rows, rows.standardised)
    assert {v.client_id: v for v in one} == {v.client_id: v for v in other}


@given(scores_lists, st.integers(0, 11), st.floats(0, 5))
def test_a_higher_score_is_never_judged_more_mildly(
    scores: list[float], index: int, more: float
) -> None:
    index %= len(scores)
    raised = [s + more if i == index else s for i, s in enumerate(scores)]
    for policy in (Policy(), Policy("graded", even_score=-1.0)):
        weights = [judged(Judge(policy), values)[index].weight for values in (scores, raised)]
        assert weights[1] <= weights[0]


def test_graded_updates_pass_by_the_chance_that_they_are_benign() -> None:
    policy = Policy("graded", threshold=2.0, even_score=-2.0, max_drop_share=0.9)
    scores = [-9.0, -5.5, -2.4, -2.2, -2.0, 1.9, 2.1]
    verdicts = judged(Judge(policy), scores)
    benign = 1.0 - chances(np.array(scores) + 2.0)
    assert benign[1] > 0.9 > benign[2] > benign[3] > 6 / 7 > benign[4]
    # At six in seven and below next to nothing is passed on, and nothing of what is flagged.
    assert [v.weight for v in verdicts] == pytest.approx([1, 1, *benign[2:4], 1e-3, 1e-3, 0])
    kinds = [v.decision.value for v in verdicts]
    assert kinds == ["keep", "keep", *["downweight"] * 4, "drop"]
    assert [v.is_held_back for v in verdicts] == [False] * 4 + [True] * 3
    # Beyond the share that may be held back, the least suspicious pass as they are.
    few = judged(Judge(Policy("graded", even_score=-2.0, max_drop_share=0.5)), [0.0, 1.0])
    assert [v.weight for v in few] == pytest.approx([1.0, 1e-3])
    # Without knowing where the odds are even, what is not flagged passes.
    plain = judged(Judge(Policy("graded", max_drop_share=0.9)), [1.9, 2.1])
    assert [v.weight for v in plain] == [1.0, 0.0]


def test_a_little_suspicion_in_every_round_adds_up() -> None:
    judge = Judge(Policy("graded", even_score=-4.0, max_drop_share=0.9))
    rounds = [judged(judge, [-3.6, *[-7.0] * 9], number) for number in range(1, 6)]
    weights = [verdicts[0].weight for verdicts in rounds]
    assert weights[0] > 0.5
    assert weights[-1] == pytest.approx(1e-3)
    assert all(v.weight == 1.0 for verdicts in rounds for v in verdicts[1:])
    # One who was blameless gets away with it once, and no longer than anybody else after that.
    later = [judged(judge, [-7.0, -3.6, *[-7.0] * 8], number)[1].weight for number in range(6, 12)]
    assert later[0] > weights[0]
    assert later[-1] == pytest.approx(1e-3)


def test_the_book_forgets_who_was_not_seen_for_longest() -> None:
    judge = Judge(Policy(), EvidenceBook(max_clients=3))
    for number, client in enumerate((1, 2, 3, 4, 1), 1):
        judge.judge(number, [client], np.array([0.0]), table(1), np.zeros((1, 2)))
    assert sorted(judge.evidence) == [1, 3, 4]


def test_state_comes_back_and_damage_is_named() -> None:
    judge = Judge(Policy("graded", even_score=0.5))
    judged(judge, [1.0, 5.0, -2.0])
    again = Judge()
    again.load_state_dict(judge.state_dict())
    assert again.state_dict() == judge.state_dict()
    assert again.evidence[2].suspicion == 4.5
    older = [[c, *rest[:3]] for c, *rest in judge.state_dict()["evidence"]["clients"]]
    again.load_state_dict({"evidence": {"clients": older}})
    assert again.evidence[2].suspicion == 0.0
    with pytest.raises(StateError, match="cannot be read"):
        again.load_state_dict({"evidence": {"clients": [["x"]]}})


def test_reasons_are_the_strongest_contributions() -> None:
    verdict = judged(Judge(), [9.0, 0.0, 0.0])[0]
    assert [(reason.name, reason.value) for reason in verdict.reasons] == [("a", 1.0), ("b", -2.0)]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"action": "drp"}, "Unknown policy 'drp'"),
        ({"threshold": float("nan")}, "a finite number, got nan"),
        ({"readmission_threshold": 3.0}, "below evidence_threshold"),
        ({"max_drop_share": 1.0}, "below 1, got 1"),
        ({"even_score": float("inf")}, "`even_score` to be a finite number or None"),
        ({"expected_share": 0.0}, "`expected_share` to be above 0 and below 1, got 0"),
        ({"worth_losing": -1.0}, "`worth_losing` to be a finite number of at least 0"),
    ],
)
def test_impossible_policies_are_named(settings: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        Policy(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("action", ["graded", "drop", "downweight", "monitor"])
def test_the_operators_word_stands_above_scores(action: str) -> None:
    policy = Policy(action, trusted=frozenset({1}), banned=frozenset({2}))
    trusted, banned, suspect, honest = judged(Judge(policy), [9.0, -9.0, 9.0, -9.0])
    assert (trusted.decision, trusted.weight) == (Decision.KEEP, 1.0)
    assert trusted.detail == "suspicious, kept because the operator trusts this node."
    assert (banned.decision, banned.weight) == (Decision.DROP, 0.0)
    assert banned.detail == "banned by the operator."
    becomes = {"monitor": "keep", "graded": "drop"}
    assert suspect.decision is Decision(becomes.get(action, action))
    assert honest.decision is Decision.KEEP
    assert trusted.evidence == 9.0, "evidence is gathered all the same"


def test_pinned_nodes_do_not_use_up_the_share() -> None:
    policy = Policy(max_drop_share=0.25, trusted=frozenset({1}), banned=frozenset({2, 3}))
    decisions = [v.decision for v in judged(Judge(policy), [9.0, 9.0, -9.0, 8.0])]
    assert decisions == [Decision.KEEP, Decision.DROP, Decision.DROP, Decision.DROP]


def test_pins_must_be_node_ids_in_one_list_only() -> None:
    with pytest.raises(ConfigurationError, match="Node 7 is both trusted and banned"):
        Policy(trusted=frozenset({7, 8}), banned=frozenset({7}))
    with pytest.raises(ConfigurationError, match="banned_nodes.*whole numbers.*'n1'"):
        Policy(banned=frozenset({"n1"}))  # type: ignore[arg-type]
