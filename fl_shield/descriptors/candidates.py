"""Candidate descriptors: which updates answer to candidate triggers, and the cohort does not.

Candidates are, for images, random draws of the Jumbo distribution, squares at every place, and what
the global model itself already obeys, one a class (*inverted*); for text, the tokens whose embedding
rows an update moved most, and phrases that a search finds in the clients' weights. The answer of a
client to a candidate is a double difference,

    R = [L_client(x + trigger) − L_client(x)] − [L_global(x + trigger) − L_global(x)],

of centred logits over the spread of the reference logits, averaged over clean samples x, one number
a candidate and class. E is R minus its median over the clients.

| name | formula | why |
|---|---|---|
| `answer_peak` | max over candidates and classes of E | one trigger opens one class |
| `answer_top` | mean of the three largest candidates' max over classes of E | parts of a trigger answer too |
| `answer_low` | min over candidates and classes of E | classes that give way |
| `answer_focus` | largest share of one class in the positive part of E | all candidates open the same class |
| `answer_own` | max over c of E of candidate c and class c, minus their mean; inverted candidates only | candidate c was made for class c |
| `answer_lift` | max over candidates and classes of E minus its median over the candidates; patches and searched phrases only | one trigger, not whatever is put there |
| `answer_clear` | E for the candidate and class that anybody answers to most; patches and searched phrases only | all attackers answer to the trigger, honest clients each to something else |
| `answer_shared` | E for the candidate and class whose second largest answer is largest; the same | a trigger that one attacker learned best, and others, too |
| `answer_peer` | largest cosine of E with another client's | colluding attackers answer alike |
"""

from __future__ import annotations

from torch import Tensor

from fl_shield.descriptors.excess import EPSILON, nearest_peer

TOP = 3


def describe_candidates(answers: Tensor) -> dict[str, Tensor]:
    """Return name to `(clients,)` values, from `(clients, candidates, classes)` answers."""
    excess = answers - answers.median(dim=0).values
    by_candidate = excess.amax(dim=2)
    positive = excess.clamp_min(0.0).sum(dim=1)
    return {
        "answer_peak": by_candidate.amax(dim=1),
        "answer_top": by_candidate.topk(min(TOP, by_candidate.shape[1]), dim=1).values.mean(dim=1),
        "answer_low": excess.amin(dim=(1, 2)),
        "answer_focus": positive.amax(dim=1) / (positive.sum(dim=1) + EPSILON),
        "answer_peer": nearest_peer(excess.flatten(1)),
    }


def describe_inverted(answers: Tensor) -> dict[str, Tensor]:
    """Return the descriptors of inverted candidates, from `(clients, classes, classes)` answers."""
    excess = answers - answers.median(dim=0).values
    own = excess.diagonal(dim1=1, dim2=2)
    return describe_candidates(answers) | {"answer_own": own.amax(dim=1) - own.mean(dim=1)}


def lift(answers: Tensor) -> Tensor:
    """Return E minus its median over the candidates, `(clients, candidates, classes)`.

    A client that answers to everything, such as one of a single class, has none.
    """
    excess = answers - answers.median(dim=0).values
    return excess - excess.median(dim=1, keepdim=True).values


def describe_sought(answers: Tensor) -> dict[str, Tensor]:
    """Return the descriptors of patches and searched phrases, of `(clients, candidates, classes)`."""
    excess = answers - answers.median(dim=0).values
    by_pair = excess.flatten(1)
    ranked = by_pair.topk(min(2, len(by_pair)), dim=0).values
    return describe_candidates(answers) | {
        "answer_lift": lift(answers).amax(dim=(1, 2)),
        "answer_clear": by_pair[:, ranked[0].argmax()],
        "answer_shared": by_pair[:, ranked[-1].argmax()],
    }


def answers(with_trigger: Tensor, without: Tensor, num_candidates: int, spread: Tensor) -> Tensor:
    """Return `(candidates, classes)` mean logit differences of one model.

    Args:
        with_trigger: `(candidates · samples, classes)` logits, candidate by candidate.
        without: `(samples, classes)` logits of the same samples without trigger.
        num_candidates: Number of candidates.
        spread: Spread of the reference logits, a scalar.
    """
    samples, classes = without.shape
    parts = with_trigger.reshape(num_candidates, samples, classes)
    parts = parts - parts.mean(dim=2, keepdim=True)
    base = without - without.mean(dim=1, keepdim=True)
    return (parts - base).mean(dim=1) / spread
