"""The server's shadows: what they learn from, how far they go, and that they are reproducible."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_shield.cohort import ClientUpdate, Cohort, State
from fl_shield.data.task import Split, TaskSpec
from fl_shield.errors import ConfigurationError
from fl_shield.live import server_shadows
from fl_shield.live.material import Material, half_of, varied
from fl_shield.live.poison import modality_spec, poisoned
from fl_shield.live.server_shadows import ServerShadows, ShadowSettings
from fl_shield.models.state import state_arrays
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.training.local import train_locally
from tests.live import _digits

SEEDS = st.integers(0, 2**31)


def update(state: State, reference: State) -> NDArray[np.float64]:
    """Return an update as one vector; the model has no buffers."""
    moved = [np.asarray(state[k], np.float64) - np.asarray(reference[k], np.float64) for k in state]
    return np.concatenate([part.ravel() for part in moved])


def norm(state: State, reference: State) -> float:
    """Return the L2 norm of an update."""
    return float(np.linalg.norm(update(state, reference)))


@given(SEEDS, st.sampled_from([4, 16, 64]))
@examples(max_examples=25)
def test_a_shadow_learns_from_half_of_the_samples(seed: int, samples: int) -> None:
    inputs = torch.eye(samples).reshape(samples, 1, 1, samples)
    labels = torch.arange(samples) % 3
    drawn = Material(inputs, labels).draw(np.random.default_rng(seed))
    # A row has the largest weight where its own sample has its one; images are moved by a pixel.
    assert set(drawn.labels.tolist()) <= {0, 1, 2}
    assert drawn.inputs.shape[1:] == inputs.shape[1:]
    touched = (drawn.inputs.sum(dim=0) > 0).sum()
    assert touched <= 3 * half_of(samples)
    assert float(drawn.inputs.min()) >= 0.0
    assert float(drawn.inputs.max()) <= 1.0


@given(SEEDS)
@examples(max_examples=25)
def test_mixtures_stay_within_the_range_and_leave_the_samples_alone(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(6, 3, 5, 5, generator=generator)
    before = images.clone()
    mixed = varied(images, np.random.default_rng(seed))
    assert torch.equal(images, before)
    assert mixed.shape == images.shape
    assert images.min() <= mixed.min()
    assert mixed.max() <= images.max()


@given(SEEDS)
@examples(max_examples=25)
def test_tokens_are_crossed_place_by_place(seed: int) -> None:
    texts = torch.arange(40).reshape(5, 8)  # the token says its text and its place
    crossed = varied(texts, np.random.default_rng(seed))
    assert crossed.dtype == torch.int64
    assert torch.equal(crossed % 8, texts % 8)


def test_the_number_of_different_halves() -> None:
    assert [Material(torch.zeros(n, 2), torch.zeros(n)).distinct for n in (4, 5, 16)] == [
        6,
        10,
        12870,
    ]


@given(SEEDS)
@examples(max_examples=25)
def test_poison_is_one_trigger_and_one_class(seed: int) -> None:
    clean = Split(torch.full((40, 1, 16, 16), 0.5), torch.arange(40) % 4)
    clean.inputs[0, 0, 0, 0], clean.inputs[1, 0, 0, 0] = -1.0, 3.0  # normalised images
    bad = poisoned(clean, TaskSpec("image", (1, 16, 16), 4), np.random.default_rng(seed))
    changed = (bad.inputs != clean.inputs).flatten(1).any(dim=1)
    relabelled = bad.labels != clean.labels
    assert 0 < int(changed.sum()) <= 24
    assert len(set(bad.labels[relabelled].tolist())) <= 1
    assert not bool((relabelled & ~changed).any())
    assert float(bad.inputs.min()) >= -1.0
    assert float(bad.inputs.max()) <= 3.0


def test_texts_are_poisoned_with_tokens_that_occur() -> None:
    texts = torch.randint(1, 30, (20, 12), generator=torch.Generator().manual_seed(0))
    texts[:, 8:] = 0
    spec = modality_spec(texts, 2)
    assert spec is not None
    assert (spec.modality, spec.pad_id) == ("text", 0)
    bad = poisoned(Split(texts, torch.zeros(20).long()), spec, np.random.default_rng(3))
    assert int(bad.inputs.max()) < 30
    assert bool((bad.inputs != texts).any())


def test_shadows_go_as_far_as_the_clients() -> None:
    shadows = ServerShadows(_digits.model(), _digits.probes(32), ShadowSettings(benign=8))
    reference = state_arrays(_digits.model())
    found = [norm(s.load(), reference) for s in shadows.benign(1, reference, [2.0])]
    assert 1.0 < min(found) <= max(found) < 4.0  # log-normal with 0.25 around 2
    assert len({round(value, 6) for value in found}) == 8


def test_shadows_go_where_honest_clients_go() -> None:
    """More than chance: cosines of random directions have a standard deviation of 1 / √n."""
    shadows = ServerShadows(
        _digits.model(), _digits.probes(64), ShadowSettings(benign=6, poisoned=0)
    )
    reference, client = state_arrays(_digits.model()), _digits.model()
    train_locally(client, _digits.client(0), _digits.TRAINING, seed=0)

    def direction(state: State) -> NDArray[np.float64]:
        return update(state, reference) / norm(state, reference)

    own = direction(state_arrays(client))
    cosines = [float(direction(s.load()) @ own) for s in shadows.benign(1, reference, [1.5])]
    assert np.mean(cosines) > 5 / math.sqrt(len(cosines) * len(own))  # five standard errors


@pytest.mark.parametrize("kept", [0, 1 << 26])
def test_the_same_seed_gives_the_same_shadows(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_shadows, "KEPT_BYTES", kept)
    reference = state_arrays(_digits.model())

    def weights(seed: int, number: int) -> list[NDArray[Any]]:
        shadows = ServerShadows(
            _digits.model(), _digits.probes(16), ShadowSettings(benign=3, poisoned=1, seed=seed)
        )
        made = (
            *shadows.benign(number, reference, [1.0]),
            *shadows.poisoned(number, reference, [1.0]),
        )
        first = [np.concatenate([a.ravel() for a in s.load().values()]) for s in made]
        again = [np.concatenate([a.ravel() for a in s.load().values()]) for s in reversed(made)]
        for one, other in zip(first, reversed(again), strict=True):
            assert np.array_equal(one, other)
        return first

    for one, other in zip(weights(0, 1), weights(0, 1), strict=True):
        assert np.array_equal(one, other)
    for changed in (weights(1, 1), weights(0, 2)):
        for one, other in zip(weights(0, 1), changed, strict=True):
            assert not np.array_equal(one, other)


def test_making_shadows_changes_nothing_else() -> None:
    model, probes = _digits.model(), _digits.probes(16)
    reference = state_arrays(model)
    before = {k: a.copy() for k, a in reference.items()}
    inputs = probes.tensors()["inputs"].clone()
    random = torch.random.get_rng_state()
    shadows = ServerShadows(model, probes)
    for shadow in (*shadows.benign(1, reference, [1.0]), *shadows.poisoned(1, reference, [1.0])):
        assert shadow.client_id < 0  # no node has such an id
        shadow.load()
    assert torch.equal(random, torch.random.get_rng_state())
    assert torch.equal(inputs, probes.tensors()["inputs"])
    for name, array in state_arrays(model).items():
        assert np.array_equal(array, before[name])
        assert np.array_equal(reference[name], before[name])


def test_clients_that_did_not_move_leave_shadows_that_do() -> None:
    reference = state_arrays(_digits.model())
    shadows = ServerShadows(
        _digits.model(), _digits.probes(16), ShadowSettings(benign=3, poisoned=1)
    )
    still = Cohort(1, reference, (ClientUpdate(1, 1.0, lambda: reference),))
    assert shadows.norms(still) == [0.0]
    for shadow in shadows.benign(1, reference, [0.0]):
        assert 0.0 < norm(shadow.load(), reference) < math.inf


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"benign": 2}, "`shadows.benign` to be 3 or more, got 2"),
        ({"benign": 4, "poisoned": 3}, "0 to half of shadows.benign, got 3"),
        ({"every": 0}, "`shadows.every` to be 1 round or more"),
        ({"false_alarms": 1.0}, "between 0 and 1, or None, got 1.0"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, float], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        ShadowSettings(**options)  # type: ignore[arg-type]


def test_probes_that_cannot_be_learned_from_are_named() -> None:
    inputs, labels = torch.rand(8, 1, 8, 8), torch.arange(8)
    with pytest.raises(ConfigurationError, match="need labels, but the probes have none"):
        ServerShadows(_digits.model(), ProbeSet(inputs))
    with pytest.raises(ConfigurationError, match="one tensor, for shadows"):
        ServerShadows(_digits.model(), ProbeSet({"pixels": inputs}, labels))
    with pytest.raises(ConfigurationError, match="class indices from 0 below 10"):
        ServerShadows(_digits.model(), ProbeSet(inputs, labels + 3))
    table = torch.nn.Linear(5, 3)
    with pytest.raises(ConfigurationError, match="triggers are drawn for images and texts only"):
        ServerShadows(table, ProbeSet(torch.rand(8, 5), labels % 3))
    ServerShadows(table, ProbeSet(torch.rand(8, 5), labels % 3), ShadowSettings(poisoned=0))
