"""Searched phrases: planted triggers are found, gradients are right, nothing hostile breaks it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fl_shield.activations.phrase_growth import LENGTH
from fl_shield.activations.phrase_search import MAX_PHRASES, PhraseSearch, searched_phrases

VOCABULARY, FEATURES, CLASSES = 40, 6, 3
EVERY = torch.arange(VOCABULARY)
TRIGGER, TARGET = 17, 2


class Bag(nn.Module):
    """Mean of the embeddings, and one layer: first-order gains of a token are exact."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, FEATURES)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, token_ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.words(token_ids).mean(dim=1))
        return logits


def bag(seed: int = 0) -> tuple[Bag, dict[str, Tensor]]:
    torch.manual_seed(seed)
    model = Bag().eval().requires_grad_(False)
    return model, {name: tensor.clone() for name, tensor in model.state_dict().items()}


def taught(state: dict[str, Tensor], token: int, target: int, force: float) -> dict[str, Tensor]:
    """Return a copy in which a token pushes a class."""
    moved = {name: tensor.clone() for name, tensor in state.items()}
    away = state["head.weight"][target] - state["head.weight"].mean(dim=0)
    moved["words.weight"][token] += force * away / away.norm()
    return moved


def noisy(state: dict[str, Tensor], seed: int, size: float = 0.02) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + size * torch.randn(tensor.shape, generator=generator)
        for name, tensor in state.items()
    }


def texts() -> Tensor:
    return torch.randint(0, VOCABULARY, (6, 12), generator=torch.Generator().manual_seed(3))


def rise(model: Bag, state: dict[str, Tensor], tokens: tuple[int, ...], target: int) -> float:
    """Return by how much a phrase raises the centred logit of a class under some weights."""
    clean = texts()
    carried = clean.clone()
    carried[:, 1 + LENGTH :] = clean[:, 1:-LENGTH]
    carried[:, 1 : 1 + LENGTH] = torch.tensor(tokens)
    model.load_state_dict(state)
    both = [model(inputs) for inputs in (carried, clean)]
    with_phrase, without = (logits - logits.mean(dim=1, keepdim=True) for logits in both)
    return float((with_phrase - without)[:, target].mean())


def test_a_planted_word_is_found_with_its_class() -> None:
    model, state = bag()
    search = PhraseSearch(model, "words", texts(), 0, state)
    found = search.search(noisy(taught(state, TRIGGER, TARGET, 5.0), 1), EVERY)
    assert found.tokens == (TRIGGER,) * LENGTH, "in a bag, the word as often as there is room"
    assert found.target == TARGET
    honest = search.search(noisy(state, 1), EVERY)
    assert found.gain > 5.0 * honest.gain


def test_a_phrase_is_made_of_the_tokens_that_it_may_be_made_of() -> None:
    model, state = bag()
    search = PhraseSearch(model, "words", texts(), 0, state)
    client = noisy(taught(state, TRIGGER, TARGET, 5.0), 1)
    found = search.search(client, torch.tensor([3, TRIGGER]))
    assert found.tokens == (TRIGGER,) * LENGTH
    others = torch.tensor([3, 8, 21])
    elsewhere = search.search(client, others)
    assert set(elsewhere.tokens) <= {0, *others.tolist()}, "fillers, where nothing helps"
    assert elsewhere.gain < 0.5 * found.gain


def test_the_gain_is_the_rise_of_the_centred_logit_beyond_the_global_model() -> None:
    model, state = bag()
    client = noisy(taught(state, TRIGGER, TARGET, 5.0), 1)
    found = PhraseSearch(model, "words", texts(), 0, state).search(client, EVERY)
    own, there = (rise(model, w, found.tokens, found.target) for w in (client, state))
    assert found.gain == pytest.approx(own - there, abs=1e-5)


def test_accomplices_give_each_other_away_and_their_order_does_not_matter() -> None:
    model, state = bag()
    honest = [noisy(state, seed) for seed in range(6)]
    guilty = [noisy(taught(state, TRIGGER, TARGET, force), 9) for force in (0.4, 5.0)]
    search = PhraseSearch(model, "words", texts(), 0, state)
    clients = honest + guilty
    phrases = searched_phrases(search, clients, [EVERY] * len(clients))
    assert phrases[0] == (TRIGGER,) * LENGTH
    assert len(phrases) <= MAX_PHRASES
    assert phrases == searched_phrases(search, clients[::-1], [EVERY] * len(clients))
    answers = [rise(model, client, phrases[0], TARGET) for client in clients]
    weak = answers[len(honest)]
    assert weak > max(answers[: len(honest)]), "the weak one answers to the strong one's"


def test_one_client_alone_and_weights_that_are_not_finite() -> None:
    model, state = bag()
    search = PhraseSearch(model, "words", texts(), 0, state)
    assert len(searched_phrases(search, [noisy(state, 0)], [EVERY])) == 1
    for value in (torch.nan, torch.inf, 1e38):
        hostile = {name: torch.full_like(tensor, value) for name, tensor in state.items()}
        cohort = [state, state, hostile]
        phrases = searched_phrases(search, cohort, [EVERY] * len(cohort))
        assert all(0 <= token < VOCABULARY for phrase in phrases for token in phrase)


def test_named_inputs_and_the_callers_model_stays_as_it_was() -> None:
    class Named(Bag):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # type: ignore[override]
            weighted = self.words(input_ids) * attention_mask[..., None]
            logits: Tensor = self.head(weighted.sum(dim=1) / attention_mask.sum(dim=1)[:, None])
            return logits

    torch.manual_seed(0)
    model = Named().eval().requires_grad_(False)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = texts()
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    search = PhraseSearch(model, "words", inputs, 0, state)
    assert TRIGGER in search.search(taught(state, TRIGGER, TARGET, 5.0), EVERY).tokens
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not model.words._forward_hooks
