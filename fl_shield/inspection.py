"""The inspector: from a cohort of updates to its table of descriptors.

One pass over the clients measures norms and the cohort's mean direction, a last one runs every
client's (extrapolated) model on the probe views; in between, weights of text models are searched
for phrases. Weights are read one client at a time, so memory is that of a few models, whatever the
size of the cohort; what is kept of a client are logits on the probes and a sketch of its update,
from which it is then compared with the others.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from fl_shield.activations.extrapolation import RAW, extrapolate
from fl_shield.activations.layout import fastest_layout, in_layout
from fl_shield.activations.penultimate import (
    PenultimateReader,
    call_model,
    find_final_layer,
    limited,
)
from fl_shield.activations.phrase_search import PhraseSearch, searched_phrases
from fl_shield.activations.slopes import input_slopes
from fl_shield.candidate_triggers import (
    CandidateTriggers,
    image_triggers,
    patch_triggers,
    text_triggers,
)
from fl_shield.cohort import Cohort, State
from fl_shield.cohort_facts import Asked, CohortFacts, Seen
from fl_shield.descriptors.comparison import (
    GUIDED,
    NUM_TOKENS,
    PATCHES,
    SEARCHED,
    SLOPES,
    Kept,
    compare,
)
from fl_shield.descriptors.excess import logit_shift
from fl_shield.descriptors.geometry import describe_geometry, squared_norm
from fl_shield.descriptors.places import Reading, describe_places, describe_reading, in_rows
from fl_shield.descriptors.plan import Plan, plan_of
from fl_shield.descriptors.sketch import Sketcher
from fl_shield.descriptors.slopes import keep_slopes, unit_of
from fl_shield.descriptors.standardise import standardise
from fl_shield.descriptors.table import DescriptorTable
from fl_shield.descriptors.tokens import (
    NUM_GUIDED,
    describe_tokens,
    find_embedding,
    insert_tokens,
)
from fl_shield.errors import ConfigurationError, ModelError, expected
from fl_shield.phrase_memory import PhraseMemory
from fl_shield.probes.candidates import first_samples, token_texts
from fl_shield.probes.probe_set import Inputs, ProbeSet, placed
from fl_shield.probes.views import CLEAN, build_views, concatenate
from fl_shield.token_survey import TokenSurvey

MAX_BLOCK, MAX_ACTIVATIONS = 16, 1 << 21
"""Clients that are described in one go, and activations kept of them until then."""

Tensors = dict[str, Tensor]


class Inspector:
    """Describes the updates of a round by what they do to probes the server holds.

    Args:
        model: The federated model; a private copy is used, the caller's stays untouched.
        probes: Clean samples of the task.
        final_layer: Name of the final classification layer, when it cannot be found by itself.
        columns: Names of the descriptors that are wanted, or a plan of where to look; what none of
            them needs is not read. None for all.
        seed: Seed of the noise view.
        device: Where probe passes run; None keeps the model's device.

    Attributes:
        memory: Phrases of earlier rounds that texts are asked about; `memory.keep()` after a round
            is what makes it one.

    Raises:
        ConfigurationError: if `model` is no `torch.nn.Module`, or if labels do not fit its classes.
        ModelError: if the model cannot take the probes or its final layer cannot be found.
    """

    def __init__(
        self,
        model: nn.Module,
        probes: ProbeSet,
        *,
        final_layer: str | None = None,
        columns: Collection[str] | Plan | None = None,
        seed: int = 0,
        device: str | torch.device | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ConfigurationError(expected("model", "a torch.nn.Module", type(model).__name__))
        self._model = copy.deepcopy(model).eval().float().requires_grad_(False)
        if device is not None:
            self._model.to(device)
        self._device = next((p.device for p in self._model.parameters()), torch.device("cpu"))
        self._plan = columns if isinstance(columns, Plan) else plan_of(columns)
        self._scale_names = [RAW, *(f"{scale:g}" for scale in self._plan.scales)]
        views = build_views(probes, seed)
        views = {name: placed(views[name], self._device) for name in self._plan.views}
        self._batch, self._slices = concatenate(views)
        self._clean = views[CLEAN]
        self.final_layer = find_final_layer(self._model, self._clean, final_layer)
        self._num_classes = call_model(self._model, self._clean).shape[1]
        self._layout = fastest_layout(self._model, self._clean)
        self._batch = in_layout(self._batch, self._layout)
        ProbeSet(probes.inputs, probes.labels, self._num_classes)  # labels must fit its classes
        self._reader = PenultimateReader(self._model, self.final_layer)
        self._labels = None if probes.labels is None else probes.labels.to(self._device)
        self._seed = seed
        self.memory = PhraseMemory()
        self._sketcher = Sketcher(seed)
        self._parameters = [name for name, _ in self._model.named_parameters()]
        self._expected = {name: tuple(t.shape) for name, t in self._model.state_dict().items()}
        # Tied weights stand in the state under each of their names, but are one parameter.
        buffers = {name for name, _ in self._model.named_buffers()} & set(self._expected)
        self._names = [*self._parameters, *sorted(buffers)]
        # The private model's own weights are where extrapolated ones are written.
        self._own = dict(self._model.named_parameters())
        self._own_buffers = {n: b for n, b in self._model.named_buffers() if n in buffers}
        self._embedding = find_embedding(self._model) if probes.token_ids is not None else None
        self._layer = self._embedding and self._embedding.removesuffix(".weight")
        if self._embedding is not None and probes.token_ids is not None:
            insert_tokens(probes.token_ids, torch.zeros(NUM_GUIDED, dtype=torch.int64))
            self._filler = int(probes.token_ids.flatten().mode().values)

    def check_arrays(self, arrays: State) -> None:
        """Check that the federated arrays are those of the model.

        Raises:
            ModelError: naming the arrays that are missing or of another shape.
        """
        wrong = [
            f"{name} {shape}"
            for name, shape in self._expected.items()
            if name not in arrays or tuple(arrays[name].shape) != shape
        ]
        if wrong:
            raise ModelError(
                "The federated arrays are not those of the shield's model: missing or of another "
                f"shape: {', '.join(wrong[:3])}{' …' if len(wrong) > 3 else ''}. Give MetaShield "
                "the same architecture that the clients train, and send its whole state_dict()."
            )

    def describe(self, cohort: Cohort) -> DescriptorTable:
        """Return the descriptors of every client of the cohort, in the cohort's order.

        Raises:
            ModelError: if the cohort's arrays are not those of the model.
        """
        self.check_arrays(cohort.reference)
        reference = self._tensors(cohort.reference)
        self._put(self._own | self._own_buffers, reference)
        baseline = self._read(None, self._batch)
        facts = self._survey(cohort, reference, baseline)
        kept = Kept(
            surplus=None if facts.tokens is None else facts.tokens.surplus.cpu(),
            slope_unit=1.0 if facts.slopes is None else unit_of(facts.slopes),
        )
        rows: list[dict[str, float]] = []
        block: list[Seen] = []
        for index, state in enumerate(self._states(cohort)):
            block.append(self._look_at(index, state, reference, baseline, facts, kept))
            activations = sum(hidden.numel() for _, hidden in block[0].readings)
            if len(block) >= min(MAX_BLOCK, max(MAX_ACTIVATIONS // max(activations, 1), 1)):
                rows += self._describe_block(block, baseline, kept)
                block = []
        if block:
            rows += self._describe_block(block, baseline, kept)
        self._sketcher.forget_plans()
        if answered := kept.answers.get((RAW, SEARCHED)):
            (asked,) = facts.asked[RAW]
            self.memory.weigh(asked.triggers.phrases, torch.stack(answered))
        for name, values in compare(kept, self._scale_names, list(self._slices)).items():
            for row, value in zip(rows, values.tolist(), strict=True):
                row[name] = value
        names = tuple(rows[0]) if rows else ()
        raw = np.array([[row[name] for name in names] for row in rows], dtype=np.float64)
        raw = raw.reshape(len(rows), len(names))
        return DescriptorTable(names, raw, standardise(raw))

    def _survey(self, cohort: Cohort, reference: Tensors, baseline: Reading) -> CohortFacts:
        norms: list[float] = []
        survey = None
        if self._embedding is not None:
            survey = TokenSurvey(self._model, self._embedding, self._clean, self._filler, reference)
        # In double precision the sum does not depend on the order of the clients.
        total = {name: torch.zeros_like(reference[name]).double() for name in self._parameters}
        for state in self._states(cohort):
            update = self._update(state, reference)
            norm = squared_norm(update.values()) ** 0.5
            norms.append(norm)
            if survey is not None:
                survey.add(update)
            for name, direction in update.items():
                total[name] += direction.div_(max(norm, 1e-12))
        tokens = None if survey is None else survey.facts()
        median = float(np.median(norms)) if norms else 0.0
        single = {name: total.pop(name).float() for name in self._parameters}
        origin = squared_norm(reference[name] for name in self._parameters) ** 0.5
        is_sloped = SLOPES in self._plan.kinds and self._layer is not None
        slopes = self._slopes_under(reference) if is_sloped else None
        facts = CohortFacts(norms, origin, median, single, tokens, {}, slopes)
        for scale in (RAW, *map("{:g}".format, self._plan.stops())):
            facts.asked[scale] = [
                Asked(asked, self._answers(asked, reference, baseline, baseline))
                for asked in self._candidates(scale, cohort, facts, reference)
            ]
        return facts

    def _candidates(
        self, scale: str, cohort: Cohort, facts: CohortFacts, reference: Tensors
    ) -> Iterator[CandidateTriggers]:
        """Yield the candidates that clients are asked about there, by how many probes have them."""
        kinds, tokens = self._plan.kinds_at(scale), facts.tokens
        if tokens is None:
            if PATCHES in kinds and (patches := patch_triggers(self._clean)):
                yield patches
            if images := image_triggers(
                self._clean, self._model, reference, self._num_classes, kinds, self._seed
            ):
                yield images
            return
        states = self._states_at(scale, cohort, facts, reference)
        if texts := text_triggers(
            self._clean, kinds, tokens, NUM_TOKENS.get(scale, 0), self._seed,
            lambda among: self._searched(reference, states, among),
        ):  # fmt: skip
            yield texts

    def _searched(
        self, reference: Tensors, states: Iterator[Tensors], among: list[Tensor]
    ) -> list[tuple[int, ...]]:
        """Return the phrases that a search finds in the clients' weights, and remembered ones."""
        assert self._layer is not None
        search = PhraseSearch(self._model, self._layer, self._clean, self._filler, reference)
        vocabulary = len(reference[f"{self._layer}.weight"])
        return self.memory.recalled(searched_phrases(search, states, among), vocabulary)

    def _states_at(
        self, scale: str, cohort: Cohort, facts: CohortFacts, reference: Tensors
    ) -> Iterator[Tensors]:
        """Yield each client's weights, its own or those at a scale of its update."""
        for state, norm in zip(self._states(cohort), facts.norms, strict=True):
            if scale == RAW:
                yield state
            else:
                update = self._update(state, reference)
                length = float(scale) * facts.median_norm
                yield reference | extrapolate(reference, update, norm, length)

    def _answers(
        self, candidates: CandidateTriggers, state: Tensors | None, client: Reading, own: Reading
    ) -> Tensor:
        """Return what a model answers to the candidates; `own` is the global model's reading."""
        clean = self._slices[CLEAN]
        logits = self._read(state, candidates.inputs)[0]
        return candidates.answers(logits, client[0][clean], own[0][clean])

    def _ask(
        self, scale: str, facts: CohortFacts, client: Reading, baseline: Reading, kept: Kept
    ) -> None:
        """Ask the private model, as it stands, about candidates; `client` is its reading."""
        for asked in facts.asked.get(scale, ()):
            answered = (self._answers(asked.triggers, None, client, baseline) - asked.own).cpu()
            for kind, part in asked.triggers.kinds.items():
                kept.answers.setdefault((scale, kind), []).append(answered[part])

    def _look_at(
        self,
        index: int,
        state: Tensors,
        reference: Tensors,
        baseline: Reading,
        facts: CohortFacts,
        kept: Kept,
    ) -> Seen:
        """Run a client's weights, and its update followed further, on the probes."""
        self._put(self._own | self._own_buffers, state)
        raw = self._read(None, self._batch)
        self._ask(RAW, facts, raw, baseline, kept)
        self._put(self._own_buffers, reference)
        update = self._update(state, reference)
        norm = facts.norms[index]
        geometry = describe_geometry(
            update, reference, facts.direction_sum, self.final_layer,
            own=max(norm, 1e-12), count=max(len(facts.norms) - 1, 1), origin=facts.origin,
        )  # fmt: skip
        seen = Seen(geometry, [raw])
        if facts.tokens is not None:
            seen.tokens = describe_tokens(facts.tokens.excess[index], facts.tokens.pull[index])
        kept.sketches.append(self._sketcher.sketch(update))
        for scale in self._plan.stops():
            extrapolate(reference, update, norm, scale * facts.median_norm, out=self._own)
            reading, name = self._read(None, self._batch), f"{scale:g}"
            if scale in self._plan.scales:
                seen.readings.append(reading)
            self._ask(name, facts, reading, baseline, kept)
            if facts.tokens is not None and f"{name}/{GUIDED}" in self._plan.asked:
                seen.guided[name] = self._guided(facts.tokens.excess[index], reference)
            if facts.slopes is not None and f"{name}/{SLOPES}" in self._plan.asked:
                slopes = keep_slopes(self._slopes_under(self._own), facts.slopes)
                kept.slopes.setdefault(name, []).append(slopes)
        return seen

    def _slopes_under(self, state: Mapping[str, Tensor]) -> Tensor:
        """Return the slopes of the logits by the first clean texts."""
        assert self._layer is not None
        return input_slopes(self._model, state, first_samples(self._clean), self._layer).cpu()

    def _guided(self, excess: Tensor, reference: Tensors) -> tuple[Reading, Reading]:
        """Read texts with the tokens that an update moved most, as the model is, and was."""
        guided = token_texts(self._clean, [tuple(excess.topk(NUM_GUIDED).indices.tolist())])
        return self._read(None, guided), self._read(reference, guided)

    @staticmethod
    def _put(places: Tensors, state: Tensors) -> None:
        for name, place in places.items():
            place.copy_(state[name])

    def _describe_block(
        self, block: list[Seen], baseline: Reading, kept: Kept
    ) -> list[dict[str, float]]:
        """Return the own descriptors of a handful of clients."""
        views = list(self._slices)

        def by_view(values: Tensor) -> Tensor:
            shape = (*values.shape[:-2], len(views), -1, values.shape[-1])
            return values.reshape(shape)

        client = (
            by_view(torch.stack([torch.stack([r[0] for r in s.readings]) for s in block])),
            by_view(torch.stack([torch.stack([r[1] for r in s.readings]) for s in block])),
        )
        reference = by_view(baseline[0]), by_view(baseline[1])
        kept.shifts.append(logit_shift(client[0], reference[0]).cpu())
        places = in_rows(describe_places(client, reference, self._scale_names, views, self._labels))
        rows = [s.geometry | place | s.tokens for s, place in zip(block, places, strict=True)]
        for scale in block[0].guided:
            pairs = [seen.guided[scale] for seen in block]
            moved, there = (
                tuple(torch.stack([pair[i][k] for pair in pairs]) for k in (0, 1)) for i in (0, 1)
            )
            guided = describe_reading((moved[0], moved[1]), (there[0], there[1]))
            for row, found in zip(rows, in_rows(guided), strict=True):
                row |= {f"{n}@{scale}/{GUIDED}": value for n, value in found.items()}
        return rows

    def _read(self, state: Tensors | None, inputs: Inputs) -> Reading:
        logits, hidden = self._reader.read(state, in_layout(inputs, self._layout))
        return limited(logits), limited(hidden)

    def _states(self, cohort: Cohort) -> Iterator[Tensors]:
        for client in cohort.clients:
            yield self._tensors(client.load())

    def _tensors(self, state: State) -> Tensors:
        tensors: Tensors = {}
        for name in self._names:
            tensor = torch.from_numpy(np.asarray(state[name])).to(self._device)
            tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
        return tensors

    def _update(self, state: Tensors, reference: Tensors) -> Tensors:
        """Return the update; the state is used up, so that both are never held at once."""
        return {name: state.pop(name) - reference[name] for name in self._parameters}
