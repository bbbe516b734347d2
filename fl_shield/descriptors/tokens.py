"""Token descriptors: which embedding rows an update moved more than the cohort did (text only).

A text backdoor must teach the model its trigger words, and so moves their embedding rows in a way
that no honest client's data explain. Rows that many clients move are ordinary vocabulary.

| name | formula (r = row motion ‖ΔE[v]‖ of every token v, over the client's typical motion) | why |
|---|---|---|
| `token_peak` | max over tokens of r − cohort median of r | one word was taught |
| `token_top` | mean of the `NUM_GUIDED` largest excesses | a phrase was taught |
| `pull_peak`, `pull_top` | the same of p, the largest over classes of ΔE[v]·g_c, over its root mean square | a word was taught to *mean* a class |
| `surplus_top` | mean of the `JOINT` largest s, where s is r minus its median over the clients that moved v, or minus 1 if that is more or they are fewer than `ENOUGH`; 0 where r is 0 | a word that only this client has is no trigger unless it moved far |
| `shared_top` | mean of s over the `NUM_GUIDED` tokens whose second largest s over the clients is largest | colluding attackers teach the same words |
| `surplus_peer` | largest cosine of max(s, 0)² with another client's | the same, without a common list |

g_c is the gradient of the centred logit of class c by the embedding of an inserted token, under the
global model: a row may move far and mean nothing, or little and in the one direction that counts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fl_shield.descriptors.excess import nearest_peer
from fl_shield.errors import ModelError

JOINT = 4
"""Tokens that are proposed together as a trigger."""

ENOUGH = 3
"""Clients that must have moved a token for their median to say how far such tokens move."""

OWN, SHARED = 128, 48
"""Tokens of a trigger phrase are looked for among so many that the client moved far, and so many
that several clients did."""

MOVED = 1e-6
"""Row motion below which a token was not in a client's data."""

NUM_GUIDED = 6
"""Tokens that an update moved most, inserted into the clean probes as a candidate trigger."""

EPSILON = 1e-12

CHUNK = 4096
"""Rows that are turned into double precision at a time."""


def find_embedding(model: nn.Module) -> str | None:
    """Return the parameter name of the largest token embedding of `model`, None without one."""
    tables = {
        f"{name}.weight": module.num_embeddings
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
    }
    return max(tables, key=lambda name: tables[name]) if tables else None


def row_motion(update: Tensor) -> Tensor:
    """Return how far each embedding row moved, `(tokens,)`, in units of the typical moved row."""
    # Squares of huge weights overflow in single precision.
    motion = torch.linalg.vector_norm(update, dim=1, dtype=torch.float64)
    moved = motion[motion > EPSILON]
    typical = moved.median() if len(moved) else torch.tensor(1.0)
    scaled: Tensor = motion / (typical + EPSILON)
    return scaled


def row_pull(update: Tensor, directions: Tensor) -> Tensor:
    """Return how far each row moved towards a class, `(tokens,)`, over its root mean square.

    Args:
        update: `(tokens, features)` motion of the embedding.
        directions: `(classes, features)` gradients g_c.
    """
    towards = directions.double().T
    pull = torch.cat([(rows.double() @ towards).amax(dim=1) for rows in torch.split(update, CHUNK)])
    scaled: Tensor = pull / (pull.square().mean().sqrt() + EPSILON)
    return scaled


def excess_motion(motions: Tensor) -> Tensor:
    """Return each client's row motion minus the cohort's median, `(clients, tokens)`."""
    return motions - motions.median(dim=0).values


def surplus_motion(motions: Tensor) -> Tensor:
    """Return how much further each client moved each token than clients that move it do.

    The excess over *all* clients is largest for words that one client alone has, triggers or not;
    this one is largest for words that were moved further than words of their kind.

    Args:
        motions: `(clients, tokens)` from `row_motion`.
    """
    moved = motions > MOVED
    usual = motions.masked_fill(~moved, torch.nan).nanmedian(dim=0).values
    usual = torch.where(moved.sum(dim=0) >= ENOUGH, usual.nan_to_num(1.0), 1.0).clamp_min(1.0)
    return torch.where(moved, motions - usual, 0.0)


def shared_tokens(surplus: Tensor, count: int = NUM_GUIDED) -> Tensor:
    """Return `count` tokens that at least two clients moved far, most shared first."""
    second = surplus.topk(min(2, len(surplus)), dim=0).values[-1]
    return second.topk(min(count, len(second))).indices


def suspected_tokens(surplus: Tensor) -> list[Tensor]:
    """Return for each client the tokens, `(candidates,)`, that its trigger would be made of.

    Args:
        surplus: `(clients, tokens)` from `surplus_motion`.
    """
    own = surplus.topk(min(OWN, surplus.shape[1]), dim=1).indices
    shared = shared_tokens(surplus, SHARED)
    return [torch.unique(torch.cat([tokens, shared])) for tokens in own]


def describe_surplus(surplus: Tensor) -> dict[str, Tensor]:
    """Return name to `(clients,)` values from `(clients, tokens)` surplus motion."""
    top = surplus.topk(min(JOINT, surplus.shape[1]), dim=1).values
    return {
        "surplus_top": top.mean(dim=1),
        "shared_top": surplus[:, shared_tokens(surplus)].mean(dim=1),
        "surplus_peer": nearest_peer(surplus.clamp_min(0.0).square()),
    }


def describe_tokens(excess: Tensor, pull: Tensor) -> dict[str, float]:
    """Return the token descriptors of one client from its `(tokens,)` excess motion and pull."""
    row: dict[str, float] = {}
    for name, values in (("token", excess), ("pull", pull)):
        top = values.topk(min(NUM_GUIDED, len(values))).values
        row |= {f"{name}_peak": float(top[0]), f"{name}_top": float(top.mean())}
    return row


def insert_tokens(token_ids: Tensor, tokens: Tensor) -> Tensor:
    """Return `(samples, length)` ids with `tokens` inserted after the first position.

    Later tokens move back and the last ones fall off; the first position, where Transformers keep
    their classification token, stays.

    Raises:
        ModelError: if the samples are too short to hold the tokens.
    """
    length = token_ids.shape[1]
    if length < len(tokens) + 2:
        raise ModelError(f"Text probes need at least {len(tokens) + 2} tokens, got {length}.")
    inserted = tokens.to(token_ids).expand(token_ids.shape[0], -1)
    return torch.cat([token_ids[:, :1], inserted, token_ids[:, 1:]], dim=1)[:, :length]
