"""Remembered phrases: the telling ones are kept, in order, and a damaged state is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fl_shield import inspection
from fl_shield.cohort import ClientUpdate, Cohort
from fl_shield.descriptors.table import DescriptorTable
from fl_shield.errors import StateError
from fl_shield.inspection import Inspector
from fl_shield.phrase_memory import SIZE, PhraseMemory
from fl_shield.probes.probe_set import ProbeSet
from tests._words import Words

PHRASES = [(1, 2), (3, 4), (5, 6)]
TRIGGER, FORCE = 17, 6.0


def weighed(answers: Tensor) -> PhraseMemory:
    memory = PhraseMemory()
    memory.weigh(PHRASES, answers)
    memory.keep()
    return memory


def test_the_phrase_that_one_client_answers_to_alone_comes_first() -> None:
    answers = torch.zeros(5, 3, 2)
    answers[:, 0, 1] = 9.0  # all answer to it
    answers[2, 2, 0] = 3.0  # one client to this
    answers[4, 1, 1] = 2.0  # another to this
    assert weighed(answers).phrases == ((5, 6), (3, 4), (1, 2))


def test_a_client_that_answers_to_everything_tells_nothing() -> None:
    answers = torch.zeros(5, 3, 2)
    answers[0, :, 0] = 50.0
    answers[3, 1, 1] = 1.0
    assert weighed(answers).phrases[0] == (3, 4)


def test_the_order_of_the_clients_does_not_matter_and_few_are_remembered() -> None:
    answers = torch.randn(7, 20, 3, generator=torch.Generator().manual_seed(0))
    phrases = [(n, n) for n in range(20)]
    found = []
    for order in (torch.arange(7), torch.randperm(7)):
        memory = PhraseMemory()
        memory.weigh(phrases, answers[order])
        assert memory.phrases == ()  # until it is told to keep them
        memory.keep()
        found.append(memory.phrases)
    assert found[0] == found[1]
    assert len(found[0]) == SIZE


def test_a_phrase_is_remembered_for_the_most_it_told_which_fades() -> None:
    """By hand: 2 told in round 1 is 2 · 0.9² in round 3, just above the 1.6 that others tell."""
    memory = PhraseMemory()

    def after(telling: dict[tuple[int, ...], float]) -> tuple[tuple[int, ...], ...]:
        # Clients 0 and 1 answer, to one phrase each; the median over the phrases is 0.
        phrases = [*telling, *((90 + n,) for n in range(len(telling) + 2))]
        answers = torch.zeros(7, len(phrases), 2)
        for column, told in enumerate(telling.values()):
            answers[column % 3, column, 0] = told
        memory.weigh(phrases, answers)
        memory.keep()
        return memory.phrases[:3]

    assert after({(1,): 2.0})[0] == (1,)
    assert after({(1,): 0.1, (2,): 1.6})[:2] == ((1,), (2,)), "2 · 0.9 = 1.8"
    assert after({(3,): 1.6})[:2] == ((1,), (3,)), "1.62 before 1.6, and 1.6 · 0.9 after both"
    assert after({(3,): 1.6})[:2] == ((3,), (1,)), "told again, and 2 · 0.9³ = 1.458"


def test_what_was_found_again_is_asked_about_once() -> None:
    memory = weighed(torch.zeros(3, 3, 2))
    assert memory.recalled([(3, 4), (7, 8)], 40) == [(3, 4), (7, 8), (1, 2), (5, 6)]
    assert memory.recalled([], 5) == [(1, 2), (3, 4)]  # a vocabulary of five has no token 6


def test_a_saved_memory_goes_on_and_a_damaged_one_is_refused() -> None:
    memory, other = weighed(torch.rand(3, 3, 2)), PhraseMemory()
    other.load_state_dict(json.loads(json.dumps(memory.state_dict())))
    assert other.phrases == memory.phrases

    def entry(tokens: Any, told: Any = 1.0) -> dict[str, Any]:
        return {"tokens": tokens, "told": told}

    damaged: list[Any] = [
        7, None, [3], [[1, 2]], [{"tokens": [1]}], [entry(["x"])], [entry([])], [entry([-1, 2])],
        [entry([1], "x")], [entry([1], float("nan"))], [entry([n]) for n in range(SIZE + 1)],
    ]  # fmt: skip
    for state in damaged:
        with pytest.raises(StateError, match="phrases"):
            other.load_state_dict(state)
    assert other.phrases == memory.phrases


def test_a_trigger_that_a_search_is_blind_to_is_still_asked_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Round 2 begins with the backdoor in the model; honest clients unlearn it, others do not."""
    torch.manual_seed(0)
    model = Words()
    clean = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    away = clean["head.weight"][1] - clean["head.weight"][0]
    push = FORCE * away / np.linalg.norm(away)

    def with_trigger(share: float, seed: int | None = None) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        size = 0.0 if seed is None else 0.02
        state = {n: (v + size * rng.standard_normal(v.shape)).astype(v.dtype)
                 for n, v in clean.items()}  # fmt: skip
        state["embedding.weight"][TRIGGER] += (share * push).astype(np.float32)
        return state

    def cohort(number: int, reference: float, honest: float, malicious: float) -> Cohort:
        states = [with_trigger(malicious if i < 2 else honest, 10 * number + i) for i in range(8)]
        clients = tuple(ClientUpdate(i, 1.0, lambda s=s: s) for i, s in enumerate(states))  # type: ignore[misc]
        return Cohort(number, with_trigger(reference), clients)

    def described(number: int, inspector: Inspector) -> DescriptorTable:
        return inspector.describe(cohorts[number])

    cohorts = {1: cohort(1, 0.0, 0.0, 1.0), 2: cohort(2, 1.0, 0.7, 1.0)}
    probes = ProbeSet(torch.randint(0, 40, (8, 12)))
    forgetful, mindful = (Inspector(model, probes) for _ in range(2))
    first = [described(1, inspector) for inspector in (forgetful, mindful)]
    np.testing.assert_array_equal(first[0].raw, first[1].raw)
    mindful.memory.keep()
    assert any(TRIGGER in phrase for phrase in mindful.memory.phrases)
    monkeypatch.setattr(inspection, "searched_phrases", lambda *_: [(0, 0, 0, 0)])
    without, having = (described(2, inspector) for inspector in (forgetful, mindful))
    column = without.names.index("answer_shared@raw/searched")

    def gap(table: DescriptorTable) -> float:
        return float(table.raw[:2, column].min() - table.raw[2:, column].max())

    assert gap(without) < 0.1 < 0.5 < gap(having)
    again = described(2, mindful)  # nothing is remembered of a round until it is kept
    np.testing.assert_array_equal(again.raw, having.raw)
