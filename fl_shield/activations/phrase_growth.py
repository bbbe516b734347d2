"""Phrases grown token by token, in short texts of little else.

Every step is what the models answer, not what a slope promises: first to each token alone, which
says what class the update raises and by which tokens; then to phrases longer by one of these, in
front or behind. A short text costs a fraction of a sample, and what the global model answers is
read once for all clients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fl_shield.activations.penultimate import limited, logits_under
from fl_shield.probes.candidates import first_samples, token_texts
from fl_shield.probes.probe_set import Inputs

LENGTH = 4
"""Tokens of a phrase."""

ROOM = 4
"""Fillers behind it."""

WIDTH = 3
"""Phrases that are grown side by side."""

POOL = 16
"""Tokens that they are grown by: those that say most alone."""

CLEAREST = 3
"""Tokens whose mean says which class a client raises."""

BATCH = 1024
"""Short texts that are read in one go."""

State = Mapping[str, Tensor]
Tokens = tuple[int, ...]


class PhraseGrowth:
    """Grows phrases in the weights of one client after the other.

    Args:
        model: A text classifier in eval mode.
        clean: Clean probes.
        filler: A frequent token, which short texts are filled up with.
        reference: The global model's tensors by name.
    """

    def __init__(self, model: nn.Module, clean: Inputs, filler: int, reference: State) -> None:
        self._model, self._reference = model, reference
        self._text, self._own = self._shortest(clean, filler)
        self._known: dict[Tokens, Tensor] = {}

    def grow(self, state: State, among: Sequence[int]) -> tuple[int, list[Tokens]]:
        """Return the class that a client raises, and phrases of any length that raise it most.

        Args:
            state: The client's tensors by name.
            among: Tokens that they may be made of.
        """
        nothing = centred_logits(self._model, state, self._text) - self._own

        def raised(phrases: Sequence[Tokens]) -> Tensor:
            there = self._read(state, phrases) - nothing
            return (there - self._read_reference(phrases)).nan_to_num(0.0)

        alone = raised([(token,) for token in among])
        target = int(alone.topk(min(CLEAREST, len(alone)), dim=0).values.mean(dim=0).argmax())
        order = alone[:, target].argsort(descending=True, stable=True)
        pool = [among[index] for index in order[:POOL].tolist()]
        beam: list[Tokens] = [(token,) for token in pool[:WIDTH]]
        phrases = list(beam)
        for _ in range(1, LENGTH):
            grown = [longer for p in beam for t in pool for longer in ((*p, t), (t, *p))]
            grown = list(dict.fromkeys(grown))
            clear = raised(grown)[:, target].argsort(descending=True, stable=True)
            beam = [grown[index] for index in clear[:WIDTH].tolist()]
            phrases += beam
        return target, phrases

    def _read(self, state: State, phrases: Sequence[Tokens]) -> Tensor:
        parts = [phrases[start : start + BATCH] for start in range(0, len(phrases), BATCH)]
        texts = (token_texts(self._text, part) for part in parts)
        return torch.cat([centred_logits(self._model, state, text) for text in texts])

    def _read_reference(self, phrases: Sequence[Tokens]) -> Tensor:
        new = [phrase for phrase in phrases if phrase not in self._known]
        if new:
            self._known.update(zip(new, self._read(self._reference, new), strict=True))
        return torch.stack([self._known[phrase] for phrase in phrases])

    def _shortest(self, clean: Inputs, filler: int) -> tuple[Inputs, Tensor]:
        """Return the shortest text that the model takes, and what it answers to it."""
        first = first_samples(clean, 1)
        whole = first if isinstance(first, Tensor) else first["input_ids"]
        try:
            return self._filled(first, filler, 1 + LENGTH + ROOM)
        except (RuntimeError, ValueError, AssertionError):  # built for texts of one length
            return self._filled(first, filler, whole.shape[1])

    def _filled(self, first: Inputs, filler: int, length: int) -> tuple[Inputs, Tensor]:
        """Return a text of a first token and fillers, and what the global model answers to it."""
        text: Inputs
        if isinstance(first, Tensor):
            text = ids = first[:, :length].clone()
        else:
            text = {name: tensor[:, :length] for name, tensor in first.items()}
            text["input_ids"] = ids = text["input_ids"].clone()
        ids[:, 1:] = filler
        return text, centred_logits(self._model, self._reference, text)


def centred_logits(model: nn.Module, state: State, texts: Inputs) -> Tensor:
    """Return `(texts, classes)` logits under some weights, less their mean over the classes."""
    logits = limited(logits_under(model, state, texts))
    return logits - logits.mean(dim=1, keepdim=True)
