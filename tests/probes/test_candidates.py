"""Candidate triggers: all clients are heard, every candidate is carried by every sample."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from fl_shield.descriptors.tokens import JOINT
from fl_shield.probes.candidates import (
    NUM_RANDOM_TOKENS,
    NUM_SAMPLES,
    choose_tokens,
    first_samples,
    jumbo_images,
    token_texts,
)


@given(st.integers(0, 2**16), st.integers(1, 40), st.floats(0.1, 100.0))
def test_images_keep_their_range_and_their_order(seed: int, count: int, span: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean = span * (torch.rand(3, 1, 8, 8, generator=generator) - 0.5)
    found = jumbo_images(clean, seed, count)
    assert found.shape == (3 * count, 1, 8, 8)
    slack = 1e-4 * span
    assert found.min() >= clean.min() - slack
    assert found.max() <= clean.max() + slack
    assert torch.equal(found, jumbo_images(clean, seed, count))
    changed = (found.reshape(count, 3, -1) - clean.flatten(1)).abs().amax(dim=2)
    assert (changed > slack).any(dim=1).float().mean() > 0.5  # a trigger may hit its own colour


def test_every_client_proposes_and_its_favourite_is_heard() -> None:
    motion, pull = torch.zeros(5, 100), torch.zeros(5, 100)
    for client in range(5):
        motion[client, 10 + client] = 1.0
        pull[client, 20 + client] = 1.0
    pull[3, 50:54] = 9.0
    chosen = choose_tokens(motion, pull, obeyed=[77], seed=0)
    singles = {token[0] for token in chosen if len(token) == 1}
    assert set(range(10, 15)) <= singles
    assert 77 in singles
    joint = [tokens for tokens in chosen if len(tokens) == JOINT]
    assert set(joint[0]) == {50, 51, 52, 53}  # the most pulled ones come first, all together
    assert len(set(chosen)) == len(chosen)
    assert chosen == choose_tokens(motion, pull, obeyed=[77], seed=0)


@given(st.integers(0, 2**16))
def test_the_order_of_the_clients_does_not_matter(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    motion, pull = torch.rand(2, 4, 60, generator=generator)
    order = torch.randperm(4, generator=generator)
    one = choose_tokens(motion, pull, [], seed=0)
    other = choose_tokens(motion[order], pull[order], [], seed=0)
    assert one == other


def test_a_tiny_vocabulary_and_a_lone_client() -> None:
    chosen = choose_tokens(torch.rand(1, 3), torch.rand(1, 3), [], seed=0)
    assert {t for token in chosen for t in token} == {0, 1, 2}
    assert NUM_RANDOM_TOKENS > 3


def test_texts_carry_the_candidates_in_turn_named_inputs_too() -> None:
    ids = torch.arange(24).reshape(2, 12)
    mask = torch.ones_like(ids)
    mask[:, 6:] = 0
    candidates = [(91,), (92, 93)]
    plain = token_texts(ids, candidates)
    assert isinstance(plain, torch.Tensor)
    assert plain[:, :4].tolist() == [
        [0, 91, 1, 2], [12, 91, 13, 14], [0, 92, 93, 1], [12, 92, 93, 13],
    ]  # fmt: skip
    kind = torch.arange(2)[:, None].expand(2, 12)
    named = token_texts(
        {"input_ids": ids, "attention_mask": mask, "token_type_ids": kind}, candidates
    )
    assert not isinstance(named, torch.Tensor)
    assert torch.equal(named["input_ids"], plain)
    # What is inserted is seen, and moves what is padding along.
    assert named["attention_mask"].sum(dim=1).tolist() == [7, 7, 8, 8]
    assert named["token_type_ids"][:, 0].tolist() == [0, 1, 0, 1]


def test_first_samples_of_both_kinds_of_input() -> None:
    ids = torch.arange(80).reshape(8, 10)
    assert torch.equal(first_samples(ids), ids[:NUM_SAMPLES])  # type: ignore[arg-type]
    named = first_samples({"input_ids": ids}, 2)
    assert not isinstance(named, torch.Tensor)
    assert named["input_ids"].tolist() == ids[:2].tolist()
