"""How well one could tell updates apart by asking about the trigger, if one knew it.

Each client's update is followed a part of the way, as the shield does, and the model there is asked
about the server's clean samples with the attackers' own trigger on them, and how much it leans to
the attackers' class. No defence knows either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_shield.activations.extrapolation import extrapolate
from fl_shield.activations.penultimate import limited, logits_under
from fl_shield.candidate_triggers import CandidateTriggers
from fl_shield.cohort import Cohort, State
from fl_shield.data.task import model_inputs
from fl_shield.descriptors.geometry import squared_norm
from fl_shield.shadow.describe import CLEAN_SAMPLES
from fl_shield.shadow.domain import Domain
from fl_shield.shadow.federation import ShadowFederation
from fl_shield.shadow.recipe import RecipeRanges
from fl_shield.shadow.store import play, recipe_of, stored_run
from fl_shield.shadow.table import EpisodeTable

SCALE = 0.25
"""How far updates are followed, in units of the cohort's median update norm."""

Scores = NDArray[np.float64]


def known_trigger_scores(
    episodes: Path, domain: Domain, ranges: RecipeRanges, tables: Sequence[EpisodeTable]
) -> list[Scores]:
    """Return the scores of all clients, `(clients,)` for each round.

    Args:
        episodes: Folder of the federations with their weights; what is not there is played.
        domain: Their domain.
        ranges: What their recipes were drawn from.
        tables: The rounds.
    """
    found: dict[tuple[int, int], Scores] = {}
    for seed in {int(table.facts["seed"]) for table in tables}:
        for number, scores in _of_run(episodes, domain, seed, ranges):
            found[seed, number] = scores
    return [found[int(table.facts["seed"]), table.round_number] for table in tables]


def _of_run(
    episodes: Path, domain: Domain, seed: int, ranges: RecipeRanges
) -> Iterator[tuple[int, Scores]]:
    """Yield number and scores of each round of a federation."""
    run = stored_run(play(domain, seed, ranges, episodes))
    federation = ShadowFederation(domain, recipe_of(domain, seed, ranges))
    clean = model_inputs(run.probes().inputs[:CLEAN_SAMPLES])
    triggered = federation.trigger.apply(clean, torch.Generator().manual_seed(0))
    model = federation.new_model().eval()
    for entry in run.rounds:
        told = obedience(model, run.cohort(entry), clean, triggered)
        yield int(entry["round"]), told[:, federation.target].numpy()


def obedience(model: nn.Module, cohort: Cohort, clean: Tensor, triggered: Tensor) -> Tensor:
    """Return what a trigger does to each client beyond the cohort, `(clients, classes)`.

    Args:
        model: A model of the cohort's architecture, in evaluation mode.
        cohort: Global weights and updates.
        clean: Clean samples.
        triggered: The same with the trigger.
    """
    parameters = [name for name, _ in model.named_parameters()]
    reference = _tensors(cohort.reference)
    updates = [
        {name: state[name] - reference[name] for name in parameters}
        for state in (_tensors(client.load()) for client in cohort.clients)
    ]
    norms = [squared_norm(update.values()) ** 0.5 for update in updates]
    length = SCALE * float(np.median(norms))
    trigger = CandidateTriggers(triggered, 1, {})
    base = limited(logits_under(model, reference, clean))

    def asked(state: dict[str, Tensor]) -> Tensor:
        with_trigger, without = (limited(logits_under(model, state, x)) for x in (triggered, clean))
        return trigger.answers(with_trigger, without, base)[0]

    with torch.no_grad():
        told = torch.stack([
            asked(reference | extrapolate(reference, update, norm, length))
            for update, norm in zip(updates, norms, strict=True)
        ])  # fmt: skip
    return (told - told.median(dim=0).values).double()


def _tensors(state: State) -> dict[str, Tensor]:
    tensors = {name: torch.from_numpy(np.asarray(values)) for name, values in state.items()}
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
