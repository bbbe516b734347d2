"""The inspector on real models: order, scale and memory promises, and clear refusals."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from fl_shield.cohort import ClientUpdate, Cohort, State
from fl_shield.errors import ConfigurationError, ModelError
from fl_shield.inspection import Inspector
from fl_shield.probes.probe_set import ProbeSet
from tests._words import Words

PROBES = ProbeSet(
    torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(5)), torch.arange(12) % 3
)


def small_cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(48, 3),
    )  # fmt: skip


def arrays(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def cohort(model: nn.Module, updates: list[dict[str, np.ndarray]]) -> Cohort:
    def loader(state: State) -> Callable[[], State]:
        return lambda: state

    clients = tuple(ClientUpdate(i, 10.0, loader(state)) for i, state in enumerate(updates))
    return Cohort(1, arrays(model), clients)


def random_updates(model: nn.Module, count: int, size: float = 0.05) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [
        {
            name: value + size * rng.standard_normal(value.shape).astype(value.dtype)
            if value.dtype.kind == "f"
            else value + 1
            for name, value in arrays(model).items()
        }
        for _ in range(count)
    ]


def test_describes_every_client_finitely_whatever_it_sends() -> None:
    model = small_cnn()
    updates = random_updates(model, 5)
    updates[1] = {k: (v * 1e30 if v.dtype.kind == "f" else v) for k, v in updates[1].items()}
    updates[2] = arrays(model)  # a zero update
    table = Inspector(model, PROBES).describe(cohort(model, updates))
    assert len(table) == 5
    assert np.isfinite(table.standardised).all()


def test_follows_the_clients_into_another_order() -> None:
    model = small_cnn()
    updates = random_updates(model, 6)
    inspector = Inspector(model, PROBES)
    one = inspector.describe(cohort(model, updates))
    other = inspector.describe(cohort(model, updates[::-1]))
    np.testing.assert_allclose(other.raw[::-1], one.raw, rtol=1e-3, atol=1e-4)


def test_geometry_tells_the_length_of_an_update_from_its_direction() -> None:
    model = small_cnn()
    updates = random_updates(model, 5)
    reference = arrays(model)
    boosted = [dict(update) for update in updates]
    for name, _ in model.named_parameters():
        boosted[0][name] = reference[name] + 1.7 * (updates[0][name] - reference[name])
    inspector = Inspector(model, PROBES)
    table, moved = (inspector.describe(cohort(model, u)) for u in (updates, boosted))
    column = table.names.index("agreement")
    assert moved.raw[0, column] == pytest.approx(table.raw[0, column], abs=1e-4)
    length = table.names.index("log_norm")
    assert moved.raw[0, length] - table.raw[0, length] == pytest.approx(np.log(1.7), abs=1e-3)


def test_the_callers_model_is_left_alone() -> None:
    model = small_cnn().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Inspector(model, PROBES).describe(cohort(model, random_updates(model, 3)))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_batchnorm_counters_do_not_enter_the_geometry() -> None:
    model = small_cnn()
    updates = random_updates(model, 4)
    counted = [dict(update) for update in updates]
    counted[0]["1.num_batches_tracked"] = np.asarray(10**6)
    inspector = Inspector(model, PROBES)
    one, other = (inspector.describe(cohort(model, u)) for u in (updates, counted))
    np.testing.assert_array_equal(one.raw, other.raw)


def test_text_models_get_token_and_guided_descriptors() -> None:
    torch.manual_seed(0)
    model = Words()
    probes = ProbeSet(torch.randint(0, 40, (8, 12)))
    updates = random_updates(model, 5, size=0.001)
    updates[3]["embedding.weight"][17] += 1.0
    table = Inspector(model, probes).describe(cohort(model, updates))
    assert table.raw[:, table.names.index("token_peak")].argmax() == 3
    assert any(name.endswith("@4/guided") for name in table.names)


def test_tied_weights_are_one_parameter() -> None:
    class Tied(Words):
        def __init__(self) -> None:
            super().__init__()
            self.again = nn.Embedding(40, 6)
            self.again.weight = self.embedding.weight

    model = Tied()
    probes = ProbeSet(torch.randint(0, 40, (8, 12)))
    table = Inspector(model, probes).describe(cohort(model, random_updates(model, 3)))
    assert np.isfinite(table.raw).all()


def test_half_precision_models_are_read_in_single_precision() -> None:
    model = small_cnn().half()
    table = Inspector(model, PROBES).describe(cohort(model, random_updates(model, 3)))
    assert np.isfinite(table.raw).all()


def test_refuses_what_is_not_a_model_and_labels_outside_its_classes() -> None:
    with pytest.raises(ConfigurationError, match=r"torch\.nn\.Module, got 'str'"):
        Inspector("resnet18", PROBES)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="from 0 below 3"):
        Inspector(small_cnn(), ProbeSet(PROBES.tensors()["inputs"], torch.full((12,), 3)))


def test_names_the_arrays_that_are_not_the_models() -> None:
    model = small_cnn()
    other = cohort(nn.Sequential(nn.Conv2d(1, 3, 3)), [])
    with pytest.raises(ModelError, match=r"1\.weight \(3,\)"):
        Inspector(model, PROBES).describe(other)
