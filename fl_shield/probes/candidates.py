"""Candidate triggers on clean probes: Jumbo draws for images, chosen and random tokens for text.

The first `NUM_SAMPLES` probes carry every candidate in turn; what a model answers to them is
described in `fl_shield.descriptors.candidates`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fl_shield.data.task import TaskSpec
from fl_shield.descriptors.tokens import JOINT, insert_tokens, shared_tokens
from fl_shield.probes.probe_set import Inputs
from fl_shield.triggers.jumbo import JumboDistribution
from fl_shield.triggers.unit_range import in_unit_range

NUM_SAMPLES = 6
"""Clean probes that carry the candidates."""

NUM_IMAGE_CANDIDATES = 12
NUM_TOKEN_CANDIDATES = 24
NUM_RANDOM_TOKENS = 4
"""Of the token candidates, how many are random words."""

NUM_PHRASES = 24
"""Candidates of several tokens that moved further than they do elsewhere."""


def first_samples(inputs: Inputs, count: int = NUM_SAMPLES) -> Inputs:
    """Return the first `count` samples of a batch."""
    if isinstance(inputs, Tensor):
        return inputs[:count]
    return {key: tensor[:count] for key, tensor in inputs.items()}


def jumbo_images(images: Tensor, seed: int, count: int = NUM_IMAGE_CANDIDATES) -> Tensor:
    """Return `(count · samples, channels, height, width)` images, candidate by candidate.

    Triggers live in the range of the images themselves, so that normalised inputs keep theirs.

    Args:
        images: `(samples, channels, height, width)` floats.
        seed: Seed of the draws.
        count: Number of candidates.
    """
    generator = torch.Generator().manual_seed(seed)
    spec = TaskSpec("image", tuple(images.shape[1:]), 2)
    jumbo = JumboDistribution()

    def drawn(unit: Tensor) -> Tensor:
        return torch.cat([jumbo.sample(generator, spec).apply(unit) for _ in range(count)])

    return in_unit_range(images, drawn)


def choose_tokens(
    motion: Tensor,
    pull: Tensor,
    obeyed: Sequence[int],
    seed: int,
    count: int = NUM_TOKEN_CANDIDATES,
) -> list[tuple[int, ...]]:
    """Return candidate triggers, each of one token or of several that are inserted together.

    Half of the single tokens are those whose rows moved most, half those pulled most to a class;
    some are random; and clients propose their `JOINT` most pulled tokens together.

    Args:
        motion: `(clients, tokens)` excess row motion.
        pull: `(clients, tokens)` excess row pull.
        obeyed: Tokens that mean a class to the global model already.
        seed: Seed of the random ones.
        count: Number of single-token candidates; every client proposes as many.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(motion.shape[1], generator=generator)[:NUM_RANDOM_TOKENS].tolist()
    room = max((count - len(drawn)) // 2, 1)
    singles = dict.fromkeys([*_proposed(motion, room), *_proposed(pull, room), *obeyed, *drawn])
    proposals = pull.topk(min(JOINT, pull.shape[1]), dim=1)
    order = proposals.values.mean(dim=1).argsort(descending=True, stable=True)
    joint = [tuple(proposals.indices[row].tolist()) for row in order[:count].tolist()]
    return [*((token,) for token in singles), *dict.fromkeys(joint)]


def choose_phrases(surplus: Tensor, count: int = NUM_PHRASES) -> list[tuple[int, ...]]:
    """Return the tokens that clients moved too far, as many together as `JOINT`.

    First those that several clients share, then what each proposes alone, the clearest first.

    Args:
        surplus: `(clients, tokens)` surplus row motion.
        count: Number of phrases.
    """
    shared = shared_tokens(surplus)[:JOINT]
    proposals = surplus.topk(min(JOINT, surplus.shape[1]), dim=1)
    order = proposals.values.mean(dim=1).argsort(descending=True, stable=True)
    own = [tuple(sorted(proposals.indices[row].tolist())) for row in order[: count - 1].tolist()]
    return list(dict.fromkeys([tuple(sorted(shared.tolist())), *own]))


def token_texts(clean: Inputs, candidates: Sequence[tuple[int, ...]]) -> Inputs:
    """Return clean texts with each candidate inserted in turn, `(candidates · samples, length)`."""
    tokens = [torch.tensor(candidate) for candidate in candidates]
    if isinstance(clean, Tensor):
        return torch.cat([insert_tokens(clean, token) for token in tokens])
    copies = {
        key: tensor.repeat(len(tokens), *[1] * (tensor.dim() - 1)) for key, tensor in clean.items()
    }
    copies["input_ids"] = torch.cat([insert_tokens(clean["input_ids"], token) for token in tokens])
    if "attention_mask" in clean:
        mask = clean["attention_mask"]
        copies["attention_mask"] = torch.cat(
            [insert_tokens(mask, torch.ones_like(token)) for token in tokens]
        )
    return copies


def _proposed(excess: Tensor, room: int) -> list[int]:
    """Return up to `room` tokens, those of largest excess first, every client heard."""
    each = min(max(room // max(len(excess), 1), 1), excess.shape[1])
    values, tokens = excess.topk(each, dim=1)
    order = values.flatten().argsort(descending=True, stable=True)
    return list(dict.fromkeys(tokens.flatten()[order].tolist()))[:room]
