"""Phrases that a client's weights obey and the global model does not: trigger inversion for text.

The tokens of a text trigger cannot be seen in a model, but they can be searched for. What is raised
is not the logit of a class but its *rise from the global model to the client's*: words that mean a
class to everybody cancel. An honest update yields little to such a search, a poisoned one a part of
its trigger; and what one client yields, all are asked about: accomplices give each other away.

A phrase is searched for in two ways, and the clearer one counts. It is *grown* token by token
(`phrase_growth`), and it is *exchanged* token by token where slopes say which token at which place
would raise the class most (HotFlip, Ebrahimi et al., ACL 2018; universal triggers, Wallace et al.,
EMNLP 2019). Slopes find what only works among other words, as in a Transformer; they do not reach
what a maximum over places passes over, as in a CNN, which growing does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fl_shield.activations.directions import embedding_slopes
from fl_shield.activations.phrase_growth import LENGTH, PhraseGrowth, State, Tokens, centred_logits
from fl_shield.probes.candidates import first_samples, token_texts
from fl_shield.probes.probe_set import Inputs

STEPS = 4
"""Tokens that a search may exchange, one after the other."""

SAMPLES = 6
"""Clean probes that carry the phrases while tokens are exchanged, and in the end."""

MAX_CLASSES = 8
"""Classes that an exchange considers: those that the update raises most by itself."""

MAX_PHRASES = 24
"""Phrases that a round of search ends with, whatever the number of clients."""


@dataclass(frozen=True)
class Phrase:
    """What a search found.

    Attributes:
        tokens: Its tokens, up to `LENGTH`.
        target: Class that it raises.
        gain: How far beyond the global model, in logits.
    """

    tokens: Tokens
    target: int
    gain: float


class PhraseSearch:
    """Searches the weights of one client after the other.

    Args:
        model: A text classifier in eval mode.
        layer: Name of its token embedding.
        clean: Clean probes.
        filler: A frequent token, which phrases are made of before the search.
        reference: The global model's tensors by name.
    """

    def __init__(
        self, model: nn.Module, layer: str, clean: Inputs, filler: int, reference: State
    ) -> None:
        self._model, self._layer = model, layer
        self._clean = first_samples(clean, SAMPLES)
        self._filler, self._reference = filler, dict(reference)
        self._own = self._logits(self._reference, self._clean).mean(dim=0)
        self._growth = PhraseGrowth(model, clean, filler, self._reference)

    def search(self, state: State, among: Tensor) -> Phrase:
        """Return the phrase that these weights obey most beyond the global model.

        Args:
            state: The client's tensors by name.
            among: `(candidates,)` tokens that may be put in.
        """
        state = dict(state)
        base = self._logits(state, self._clean).mean(dim=0) - self._own
        exchanged = self._exchanged(state, among, base)
        target, phrases = self._growth.grow(state, among.tolist())
        gains = self._gains(state, phrases)[:, target] - base[target]
        best = int(gains.argmax())
        if float(gains[best]) > exchanged.gain:
            return Phrase(phrases[best], target, float(gains[best]))
        return exchanged

    def _exchanged(self, state: State, among: Tensor, base: Tensor) -> Phrase:
        """Return the phrase that exchanging one token after the other ends with."""
        tokens = (self._filler,) * LENGTH
        target: int | None = None
        gain, misses = -torch.inf, 0
        for _ in range(STEPS):
            classes = self._promising(base) if target is None else [target]
            rise, raised = self._rise(state, tokens, classes, among)
            if target is None:
                best = int(rise.amax(dim=2).sum(dim=1).argmax())
                target, rise, raised = classes[best], rise[best : best + 1], raised[best : best + 1]
            if gain == -torch.inf:
                gain = float(raised[0] - base[target])
            tried = _exchanges(tokens, among, rise[0], misses)
            gains = self._gains(state, tried)[:, target] - base[target]
            found = int(gains.argmax())
            if float(gains[found]) > gain:
                tokens, gain, misses = tried[found], float(gains[found]), 0
            else:
                misses += 1
        assert target is not None
        return Phrase(tokens, target, gain)

    def _promising(self, base: Tensor) -> list[int]:
        return base.topk(min(MAX_CLASSES, len(base))).indices.tolist()

    def _gains(self, state: State, phrases: Sequence[Tokens]) -> Tensor:
        texts = token_texts(self._clean, phrases)
        moved = self._logits(state, texts) - self._logits(self._reference, texts)
        return moved.reshape(len(phrases), -1, moved.shape[1]).mean(dim=1)

    def _rise(
        self, state: State, tokens: Tokens, classes: Sequence[int], among: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return first-order gains of exchanging a token, and what the phrase raises.

        Returns:
            `(classes, places, candidates)` and `(classes,)`.
        """
        texts = token_texts(self._clean, [tokens])
        (slope, raised), (there, was) = (
            self._slope(weights, texts, classes) for weights in (state, self._reference)
        )
        table, rows = f"{self._layer}.weight", torch.cat([among, among.new_tensor(tokens)])
        rise = slope @ state[table][rows].T - there @ self._reference[table][rows].T
        put_in, present = torch.split(rise.nan_to_num(0.0), [len(among), LENGTH], dim=2)
        return put_in - present.diagonal(dim1=1, dim2=2)[..., None], raised - was

    def _slope(self, state: State, texts: Inputs, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
        slopes, means = embedding_slopes(
            self._model, self._layer, lambda: self._logits(state, texts).mean(dim=0)[list(classes)]
        )
        return slopes.sum(dim=1)[:, 1 : 1 + LENGTH], means

    def _logits(self, state: State, texts: Inputs) -> Tensor:
        return centred_logits(self._model, state, texts)


def searched_phrases(
    search: PhraseSearch, states: Iterable[State], among: Iterable[Tensor]
) -> list[Tokens]:
    """Return the phrases that a round of clients gives away, the clearest first.

    They do not depend on the order of the clients.

    Args:
        search: The search.
        states: The clients' tensors, one client after the other.
        among: For each client the tokens that its phrase may be made of: where all may be, words
            that every model gives some meaning hide those of a trigger.
    """
    found = [search.search(state, tokens) for state, tokens in zip(states, among, strict=True)]
    order = sorted(found, key=lambda phrase: (-phrase.gain, phrase.tokens))
    return list(dict.fromkeys(phrase.tokens for phrase in order))[:MAX_PHRASES]


def _exchanges(tokens: Tokens, among: Tensor, rise: Tensor, misses: int) -> list[Tokens]:
    """Return phrases with one token exchanged, place by place, and one with all.

    Args:
        tokens: The present phrase.
        among: `(candidates,)` tokens that may be put in.
        rise: `(places, candidates)` first-order gains.
        misses: Steps in a row that found nothing: what they tried is left out.
    """
    ranked = rise.topk(min(misses + 1, len(among)), dim=1).indices
    best = tuple(among[ranked[:, -1]].tolist())
    one = [(*tokens[:place], token, *tokens[place + 1 :]) for place, token in enumerate(best)]
    return [*one, best]
