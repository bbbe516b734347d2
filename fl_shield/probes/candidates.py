"""Candidate triggers on clean probes: Jumbo draws for images, chosen and random tokens for text.

The first `NUM_SAMPLES` probes carry every candidate in turn; what a model answers to them is
described in `fl_shield.descriptors.candidates`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fl_shield.data.task import TaskSpec
from fl_shield.descriptors.tokens import insert_tokens
from fl_shield.probes.probe_set import Inputs
from fl_shield.triggers.jumbo import JumboDistribution

NUM_SAMPLES = 6
"""Clean probes that carry the candidates."""

NUM_IMAGE_CANDIDATES = 12
NUM_TOKEN_CANDIDATES = 24
NUM_RANDOM_TOKENS = 4
"""Of the token candidates, how many are random words."""


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
    low, high = images.min(), images.max()
    span = (high - low).clamp_min(1e-6)
    unit = (images - low) / span
    generator = torch.Generator().manual_seed(seed)
    spec = TaskSpec("image", tuple(images.shape[1:]), 2)
    jumbo = JumboDistribution()
    parts = [jumbo.sample(generator, spec).apply(unit) for _ in range(count)]
    return torch.cat(parts) * span + low


def choose_tokens(excess: Tensor, seed: int, count: int = NUM_TOKEN_CANDIDATES) -> Tensor:
    """Return token ids `(at most count,)`: those that clients moved most, and a few random ones.

    Args:
        excess: `(clients, tokens)` excess row motion.
        seed: Seed of the random ones.
        count: Number of candidates; every client proposes as many.
    """
    clients, vocabulary = excess.shape
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(vocabulary, generator=generator)[:NUM_RANDOM_TOKENS]
    room = max(count - len(drawn), 1)
    each = min(max(room // max(clients, 1), 1), vocabulary)
    values, tokens = excess.topk(each, dim=1)
    order = values.flatten().argsort(descending=True, stable=True)
    guided = list(dict.fromkeys(tokens.flatten()[order].tolist()))[:room]
    return torch.tensor(list(dict.fromkeys(guided + drawn.tolist())))


def token_texts(clean: Inputs, tokens: Tensor) -> Inputs:
    """Return clean texts with each token inserted in turn, `(tokens · samples, length)`."""
    if isinstance(clean, Tensor):
        return torch.cat([insert_tokens(clean, token[None]) for token in tokens])
    ids = torch.cat([insert_tokens(clean["input_ids"], token[None]) for token in tokens])
    copies = {
        key: tensor.repeat(len(tokens), *[1] * (tensor.dim() - 1)) for key, tensor in clean.items()
    }
    copies["input_ids"] = ids
    if "attention_mask" in clean:
        one = torch.ones(1, dtype=torch.int64)
        mask = insert_tokens(clean["attention_mask"], one)
        copies["attention_mask"] = mask.repeat(len(tokens), 1)
    return copies
