"""What a first pass over the clients of a text round learns of their embedding rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fl_shield.activations.directions import obeyed_tokens, token_directions
from fl_shield.descriptors.tokens import excess_motion, row_motion, row_pull, surplus_motion
from fl_shield.probes.candidates import first_samples, token_texts
from fl_shield.probes.probe_set import Inputs


@dataclass(frozen=True)
class TokenFacts:
    """Motion of embedding rows in a round.

    Attributes:
        excess: `(clients, tokens)` row motion beyond the cohort's median.
        pull: `(clients, tokens)` motion towards a class beyond the cohort's median.
        surplus: `(clients, tokens)` motion beyond that of clients that moved the token.
        obeyed: Tokens that mean a class to the global model already.
    """

    excess: Tensor
    pull: Tensor
    surplus: Tensor
    obeyed: tuple[int, ...]


class TokenSurvey:
    """Gathers the row motion of one client after the other.

    Args:
        model: A text classifier in eval mode.
        embedding: Parameter name of its token embedding.
        clean: Clean probes.
        filler: A frequent token, where the directions of a token's embedding are taken.
        reference: The global model's tensors by name.
    """

    def __init__(
        self,
        model: nn.Module,
        embedding: str,
        clean: Inputs,
        filler: int,
        reference: Mapping[str, Tensor],
    ) -> None:
        self._embedding = embedding
        probes = token_texts(first_samples(clean), [(filler,)])
        layer = embedding.removesuffix(".weight")
        self._directions = token_directions(model, reference, layer, probes)
        self._obeyed = tuple(obeyed_tokens(reference[embedding], self._directions))
        self._motions: list[Tensor] = []
        self._pulls: list[Tensor] = []

    def add(self, update: Mapping[str, Tensor]) -> None:
        """Measure a client's update."""
        rows = update[self._embedding]
        self._motions.append(row_motion(rows))
        self._pulls.append(row_pull(rows, self._directions))

    def facts(self) -> TokenFacts | None:
        """Return what was learned, None of nobody."""
        if not self._motions:
            return None
        motions, pulls = torch.stack(self._motions), torch.stack(self._pulls)
        return TokenFacts(
            excess_motion(motions), excess_motion(pulls), surplus_motion(motions), self._obeyed
        )
