"""The candidate triggers of a round, and what a model answers to them.

Images: Jumbo draws, what the global model itself already obeys, and squares at every place. Text:
tokens that updates moved, and phrases that a search finds in their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fl_shield.activations.universal import perturbed, universal_perturbations
from fl_shield.descriptors.candidates import answers
from fl_shield.descriptors.comparison import INVERTED, JUMBO, PATCHES, PHRASES, SEARCHED, TOKENS
from fl_shield.descriptors.excess import EPSILON
from fl_shield.descriptors.tokens import suspected_tokens
from fl_shield.probes.candidates import (
    choose_phrases,
    choose_tokens,
    first_samples,
    jumbo_images,
    token_texts,
)
from fl_shield.probes.patches import NUM_PATCH_SAMPLES, patched_images
from fl_shield.probes.probe_set import Inputs
from fl_shield.token_survey import TokenFacts


@dataclass(frozen=True)
class CandidateTriggers:
    """Candidate triggers of a round, each on the first clean probes.

    Attributes:
        inputs: `(candidates · samples, …)`, candidate by candidate.
        count: Number of candidates.
        kinds: Which of them are of which kind.
        phrases: Tokens of those that a search found, or that are remembered; for texts.
    """

    inputs: Inputs
    count: int
    kinds: dict[str, slice]
    phrases: Sequence[tuple[int, ...]] = ()

    def answers(self, with_trigger: Tensor, clean: Tensor, reference: Tensor) -> Tensor:
        """Return what a model answers, `(candidates, classes)`.

        Args:
            with_trigger: `(candidates · samples, classes)` logits of the model on `inputs`.
            clean: `(probes, classes)` its logits on the clean probes.
            reference: `(probes, classes)` the global model's, whose spread is the unit.
        """
        size = len(with_trigger) // self.count
        spread = (reference - reference.mean(dim=1, keepdim=True)).std() + EPSILON
        return answers(with_trigger, clean[:size], self.count, spread)


def text_triggers(
    clean: Inputs,
    kinds: Sequence[str],
    tokens: TokenFacts,
    num_tokens: int,
    seed: int,
    searched: Callable[[list[Tensor]], Sequence[tuple[int, ...]]],
) -> CandidateTriggers | None:
    """Return the candidates of a round of texts, None if none are wanted.

    Args:
        clean: Clean probes.
        kinds: Which of `TOKENS`, `PHRASES` and `SEARCHED` to make.
        tokens: How the clients moved their embedding rows.
        num_tokens: Single tokens among `TOKENS`.
        seed: Seed of the random ones.
        searched: Searches the clients' weights for phrases of the tokens given for each.
    """
    together: list[tuple[int, ...]] = []
    where: dict[str, slice] = {}
    makers: dict[str, Callable[[], Sequence[tuple[int, ...]]]] = {
        TOKENS: lambda: choose_tokens(tokens.excess, tokens.pull, tokens.obeyed, seed, num_tokens),
        PHRASES: lambda: choose_phrases(tokens.surplus),
        SEARCHED: lambda: searched(suspected_tokens(tokens.surplus)),
    }
    for kind in kinds:
        if kind in makers:
            chosen = makers[kind]()
            where[kind] = slice(len(together), len(together) + len(chosen))
            together += chosen
    if not together:
        return None
    phrases = together[where[SEARCHED]] if SEARCHED in where else ()
    texts = token_texts(first_samples(clean), together)
    return CandidateTriggers(texts, len(together), where, phrases)


def patch_triggers(clean: Inputs) -> CandidateTriggers | None:
    """Return patches as candidates, None for inputs that are no images."""
    if not _are_images(clean):
        return None
    images = first_samples(clean, NUM_PATCH_SAMPLES)
    assert isinstance(images, Tensor)
    inputs = patched_images(images)
    count = len(inputs) // len(images)
    return CandidateTriggers(inputs, count, {PATCHES: slice(count)})


def image_triggers(
    clean: Inputs,
    model: nn.Module,
    reference: dict[str, Tensor],
    num_classes: int,
    kinds: Sequence[str],
    seed: int,
) -> CandidateTriggers | None:
    """Return the candidates of a round of images, None for other inputs or if none are wanted.

    Args:
        clean: Clean probes.
        model: The model, in evaluation mode.
        reference: The global model's tensors by name.
        num_classes: Number of classes.
        kinds: Which of `JUMBO` and `INVERTED` to make.
        seed: Seed of the Jumbo draws.
    """
    if not _are_images(clean):
        return None
    images = first_samples(clean)
    assert isinstance(images, Tensor)
    parts: list[Tensor] = []
    where: dict[str, slice] = {}
    if INVERTED in kinds:
        search = universal_perturbations(model, reference, images, num_classes)
        parts.append(perturbed(images, search))
        where[INVERTED] = slice(len(search))
    if JUMBO in kinds:
        before = sum(map(len, parts)) // len(images)
        parts.append(jumbo_images(images, seed))
        where[JUMBO] = slice(before, before + len(parts[-1]) // len(images))
    if not parts:
        return None
    inputs = torch.cat(parts)
    return CandidateTriggers(inputs, len(inputs) // len(images), where)


def _are_images(inputs: Inputs) -> bool:
    return isinstance(inputs, Tensor) and inputs.is_floating_point() and inputs.dim() == 4
