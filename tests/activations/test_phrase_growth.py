"""Grown phrases: what a maximum hides from slopes is found, and costs no more than it must."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from fl_shield.activations.phrase_growth import LENGTH, POOL, ROOM, PhraseGrowth
from fl_shield.activations.phrase_search import PhraseSearch

VOCABULARY, CLASSES = 60, 3
FIRST, SECOND, TARGET = 17, 31, 2


class Loudest(nn.Module):
    """A text convolution: each filter answers to a pair of neighbours, and the loudest one counts.

    Class 0 is said by a word that every text has, louder than any word can be alone.
    """

    def __init__(self, pair: float) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, VOCABULARY)
        self.words.weight.data = torch.eye(VOCABULARY)
        self.pairs = nn.Conv1d(VOCABULARY, 2, 2)
        self.pairs.weight.data.zero_()
        self.pairs.weight.data[0, 5, 0] = 3.0
        self.pairs.weight.data[1, FIRST, 0] = self.pairs.weight.data[1, SECOND, 1] = pair
        self.pairs.bias = nn.Parameter(torch.tensor([0.0, -0.4 * pair]))
        self.head = nn.Linear(2, CLASSES)
        self.head.weight.data = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
        self.head.bias.data.zero_()

    def forward(self, token_ids: Tensor) -> Tensor:
        heard = self.pairs(self.words(token_ids).transpose(1, 2)).relu().amax(dim=2)
        logits: Tensor = self.head(heard)
        return logits


def weights(pair: float) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in Loudest(pair).state_dict().items()}


def texts(length: int = 14) -> Tensor:
    clean = torch.randint(40, VOCABULARY, (6, length), generator=torch.Generator().manual_seed(1))
    clean[:, length // 2] = 5
    return clean


EVERY = list(range(6, VOCABULARY))


def test_a_pair_that_only_counts_together_is_grown_in_its_order() -> None:
    growth = PhraseGrowth(Loudest(0.0).eval(), texts(), 0, weights(0.0))
    target, phrases = growth.grow(weights(4.0), EVERY)
    assert target == TARGET
    assert any(pair == (FIRST, SECOND) for p in phrases for pair in pairwise(p))
    assert {len(phrase) for phrase in phrases} == set(range(1, LENGTH + 1))


def test_a_search_finds_what_slopes_alone_pass_over() -> None:
    """Words that no filter hears yet pass no slope on."""
    model = Loudest(0.0).eval()
    search = PhraseSearch(model, "words", texts(), 0, weights(0.0))
    state, among = weights(4.0), torch.tensor(EVERY)
    base = search._logits(state, search._clean).mean(dim=0) - search._own
    assert search._exchanged(state, among, base).gain == pytest.approx(0.0, abs=1e-6)
    found = search.search(state, among)
    # 2 · 4 − 0.4 · 4 = 6.4 of the filter, of which centring takes a third.
    assert found.gain == pytest.approx(6.4 * 2 / 3, abs=1e-5)
    assert found.target == TARGET


def test_what_moved_without_a_phrase_is_not_the_phrases_merit() -> None:
    """A client whose every answer has drifted raises nothing by any word."""
    drifted = weights(0.0)
    drifted["head.bias"] = torch.tensor([0.0, 5.0, 0.0])
    search = PhraseSearch(Loudest(0.0).eval(), "words", texts(), 0, weights(0.0))
    assert search.search(drifted, torch.tensor(EVERY)).gain == pytest.approx(0.0, abs=1e-6)


def test_texts_are_short_unless_the_model_takes_one_length_only() -> None:
    lengths: set[int] = set()

    class Watched(Loudest):
        def forward(self, token_ids: Tensor) -> Tensor:
            lengths.add(token_ids.shape[1])
            return super().forward(token_ids)

    class Fixed(Loudest):
        def forward(self, token_ids: Tensor) -> Tensor:
            return super().forward(token_ids.reshape(-1, 14))

    PhraseGrowth(Watched(0.0).eval(), texts(), 0, weights(0.0)).grow(weights(4.0), EVERY)
    assert lengths == {1 + LENGTH + ROOM}
    target, phrases = PhraseGrowth(Fixed(0.0).eval(), texts(), 0, weights(0.0)).grow(
        weights(4.0), EVERY
    )
    assert target == TARGET
    assert (FIRST, SECOND) in phrases


def test_what_the_global_model_answers_is_read_once() -> None:
    reads: list[int] = []

    class Counted(Loudest):
        def forward(self, token_ids: Tensor) -> Tensor:
            reads.append(len(token_ids))
            return super().forward(token_ids)

    growth = PhraseGrowth(Counted(0.0).eval(), texts(), 0, weights(0.0))
    reads.clear()
    growth.grow(weights(4.0), EVERY)
    first = sum(reads)
    reads.clear()
    growth.grow(weights(4.0), EVERY)
    assert 2 * (sum(reads) - 1) == first - 1, "once more but for the global model"


def test_few_tokens_and_weights_that_are_not_finite() -> None:
    growth = PhraseGrowth(Loudest(0.0).eval(), texts(), 0, weights(0.0))
    assert growth.grow(weights(4.0), [FIRST])[1][0] == (FIRST,)
    for value in (torch.nan, torch.inf, 1e38):
        hostile = {name: torch.full_like(t, value) for name, t in weights(0.0).items()}
        _, phrases = growth.grow(hostile, EVERY)
        assert all(token in EVERY for phrase in phrases for token in phrase)
    assert len(EVERY) > POOL
