"""Only what the wanted descriptors need is read, and what is read says the same."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fl_shield.activations.phrase_growth import LENGTH, POOL, WIDTH
from fl_shield.cohort import ClientUpdate, Cohort, State
from fl_shield.descriptors.plan import Plan, plan_of
from fl_shield.detector import RobustRule, columns_of, default_detector
from fl_shield.inspection import Inspector
from fl_shield.probes.probe_set import ProbeSet
from tests._words import VOCABULARY, Words

NUM_PROBES = 8
IMAGES = ProbeSet(
    torch.rand(NUM_PROBES, 1, 8, 8, generator=torch.Generator().manual_seed(0)),
    torch.arange(NUM_PROBES) % 3,
)
TEXTS = ProbeSet(
    torch.randint(2, 40, (NUM_PROBES, 12), generator=torch.Generator().manual_seed(0)),
    torch.arange(NUM_PROBES) % 2,
)


class Pictures(nn.Module):
    """A small convolutional network that counts the samples it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(144, 3)

    def forward(self, images: Tensor) -> Tensor:
        SEEN.append(len(images))
        logits: Tensor = self.head(torch.relu(self.body(images)).flatten(1))
        return logits


class CountedWords(Words):
    """A bag-of-words classifier that notes what it is shown."""

    def forward(self, ids: Tensor) -> Tensor:
        SEEN.append(len(ids))
        return super().forward(ids)


SEEN: list[int] = []


def cohort(model: nn.Module, clients: int = 5) -> Cohort:
    rng = np.random.default_rng(1)
    reference = {name: value.numpy().copy() for name, value in model.state_dict().items()}

    def update() -> State:
        noise = {k: 0.1 * rng.standard_normal(v.shape) for k, v in reference.items()}
        return {k: v + noise[k].astype(np.float32) for k, v in reference.items()}

    states = [update() for _ in range(clients)]
    return Cohort(
        1,
        reference,
        tuple(ClientUpdate(i, 1.0, lambda s=s: s) for i, s in enumerate(states)),  # type: ignore[misc]
    )


def samples_per_client(model: nn.Module, probes: ProbeSet, columns: Iterable[str] | None) -> int:
    """Return how many more samples are passed for one more client."""
    counts = []
    inspector = Inspector(model, probes, columns=None if columns is None else tuple(columns))
    for clients in (4, 5):
        SEEN.clear()
        inspector.describe(cohort(model, clients))
        counts.append(sum(SEEN))
    return counts[1] - counts[0]


@pytest.mark.parametrize(
    ("columns", "samples"),
    [
        (["log_norm"], NUM_PROBES),  # the client's own weights on the clean probes
        (["turn@raw/clean", "turn@raw/noise"], 2 * NUM_PROBES),
        (["turn@raw/clean", "peer@4/noise"], 4 * NUM_PROBES),
        (["turn@1/clean", "turn@10/clean"], 3 * NUM_PROBES),
        # Twelve draws of six samples, at a scale that nothing else reads.
        (["answer_top@4/jumbo"], 2 * NUM_PROBES + 12 * 6),
        # One perturbation a class on six samples.
        (["answer_own@4/inverted"], 2 * NUM_PROBES + 3 * 6),
        # Two colours at sixteen places on four samples, under the client's own weights.
        (["answer_lift@raw/patches"], NUM_PROBES + 2 * 16 * 4),
        # A part of the way, the same squares; slopes are read of texts only.
        (["answer_lift@0.25/patches"], 2 * NUM_PROBES + 2 * 16 * 4),
        (["slope_peer@0.25/slopes"], 2 * NUM_PROBES),
        (None, 10 * NUM_PROBES + 2 * ((12 + 3) * 6 + 2 * 16 * 4)),
    ],
)
def test_passes_are_those_that_the_descriptors_need(
    columns: list[str] | None, samples: int
) -> None:
    assert samples_per_client(Pictures(), IMAGES, columns) == samples


def test_texts_are_guided_only_where_that_is_read() -> None:
    alone = samples_per_client(CountedWords(), TEXTS, ["token_peak"])
    guided = samples_per_client(CountedWords(), TEXTS, ["token_peak", "turn@4/guided"])
    assert alone == NUM_PROBES
    # Scale 4 on the clean probes, then guided texts on the client's and on the global model.
    assert guided == alone + 3 * NUM_PROBES


def test_slopes_of_texts_are_taken_of_six_samples() -> None:
    more = samples_per_client(CountedWords(), TEXTS, ["slope_peer@0.25/slopes"])
    assert more == 2 * NUM_PROBES + 6


def test_phrases_are_asked_of_the_clients_own_weights() -> None:
    # A phrase of all clients together and one of each, on six samples; a phrase more with a client.
    more = samples_per_client(CountedWords(), TEXTS, ["answer_top@raw/phrases"])
    assert NUM_PROBES + 6 * 6 <= more <= NUM_PROBES + (6 + 5 + 1) * 6


def test_a_search_costs_two_times_its_steps_and_what_the_others_found() -> None:
    # A step takes the slopes of two models, and nine phrases on both; six samples each.
    step = (2 + 2 * 9) * 6
    # Growing takes short texts, one for every token that it may begin with and, a token longer, two
    # for each of a pool and of the phrases that are grown; and what it ends with, six samples each.
    grown = 1 + VOCABULARY + (LENGTH - 1) * WIDTH * POOL * 2
    growth = 2 * (grown + 6 * LENGTH * WIDTH)
    # One more phrase is answered by five clients, twice beside the global model and once without,
    # and the fifth client answers to what the others have found.
    answers = (5 * 3 + 1) * 6 + 4 * 3 * 6
    more = samples_per_client(CountedWords(), TEXTS, ["answer_lift@raw/searched"])
    assert more <= NUM_PROBES + 2 * (2 * 6 + 3 * step) + growth + answers


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_what_is_read_says_the_same_as_in_a_full_reading(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["image", "text"]))
    torch.manual_seed(0)
    model, probes = (Pictures(), IMAGES) if kind == "image" else (CountedWords(), TEXTS)
    full = Inspector(model, probes).describe(cohort(model))
    wanted = data.draw(st.lists(st.sampled_from(full.names), min_size=1, max_size=6))
    part = Inspector(model, probes, columns=wanted).describe(cohort(model))
    for name in wanted:
        a, b = (t.raw[:, t.names.index(name)] for t in (full, part))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=name)


def test_places_are_left_out_by_pattern() -> None:
    plan = Plan().without(["*@1/*", "*@10/*", "*/jumbo", "*@4/inverted", "*/noise"])
    assert plan.scales == (0.25, 4.0)
    assert plan.views == ("clean",)
    assert "0.25/inverted" in plan.asked
    assert not {"4/inverted", "0.25/jumbo", "4/jumbo"} & {*plan.asked}
    model = Pictures()
    full = Inspector(model, IMAGES).describe(cohort(model))
    part = Inspector(model, IMAGES, columns=plan).describe(cohort(model))
    assert {*part.names} < {*full.names}
    assert not any(name.endswith(("/noise", "/jumbo")) or "@10/" in name for name in part.names)
    assert Plan().without([]) == Plan()


def test_unknown_columns_ask_for_nothing() -> None:
    assert plan_of(["something@7/else", "odd@"]) == plan_of([])
    assert plan_of(None) == Plan()


def test_detectors_say_what_they_read_or_are_shown_everything() -> None:
    assert "growth@raw/clean" in (columns_of(RobustRule()) or ())
    assert columns_of(default_detector())

    class Silent(RobustRule):
        columns = None  # type: ignore[assignment]

    assert columns_of(Silent()) is None


def test_a_large_probe_set_is_limited_evenly_over_the_classes() -> None:
    labels = torch.tensor([0] * 30 + [1] * 30 + [2] * 4)
    probes = ProbeSet(torch.arange(64.0).reshape(64, 1), labels)
    few = probes.limited(12)
    assert few.labels is not None
    assert torch.bincount(few.labels).tolist() == [4, 4, 4]
    assert isinstance(few.inputs, Tensor)
    assert torch.equal(labels[few.inputs[:, 0].long()], few.labels)  # still pairs
    assert probes.limited(64) is probes
    assert len(ProbeSet(torch.rand(20, 3)).limited(16)) == 16
