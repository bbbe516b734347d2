"""Many clients and places at once, and weights in chunks: the same numbers as one by one."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fl_shield.activations.extrapolation import extrapolate
from fl_shield.descriptors.activation import describe_activations
from fl_shield.descriptors.geometry import CHUNK, describe_geometry, squared_norm
from fl_shield.descriptors.places import describe_places, in_rows
from fl_shield.descriptors.response import describe_response
from fl_shield.descriptors.sketch import Sketcher

CLIENTS, SCALES, VIEWS, SAMPLES, CLASSES, FEATURES = 3, ("raw", "4"), ("clean", "noise"), 6, 4, 5


def cube(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("labelled", [True, False])
def test_places_are_described_as_if_one_by_one(labelled: bool) -> None:
    shape = (CLIENTS, len(SCALES), len(VIEWS), SAMPLES)
    client = cube(1, *shape, CLASSES), cube(2, *shape, FEATURES)
    reference = cube(3, *shape[2:], CLASSES), cube(4, *shape[2:], FEATURES)
    labels = torch.tensor([0, 1, 1, 3, 3, 3]) if labelled else None
    rows = in_rows(describe_places(client, reference, SCALES, VIEWS, labels))
    assert len(rows) == CLIENTS
    truth = reference[0][0].argmax(dim=1) if labels is None else labels
    for i, row in enumerate(rows):
        for j, scale in enumerate(SCALES):
            for k, view in enumerate(VIEWS):
                one = describe_response(client[0][i, j, k], reference[0][k])
                one |= describe_activations(client[1][i, j, k], reference[1][k])
                for name, value in one.items():
                    assert row[f"{name}@{scale}/{view}"] == pytest.approx(value, abs=1e-6), name
            gained = client[0][i, j, 0].log_softmax(dim=1) - reference[0][0].log_softmax(dim=1)
            rise = gained[torch.arange(SAMPLES), truth].numpy()
            assert row[f"fit@{scale}/clean"] == pytest.approx(rise.mean(), abs=1e-6)
            lowest = min(rise[truth.numpy() == label].mean() for label in np.unique(truth))
            assert row[f"fit_low@{scale}/clean"] == pytest.approx(lowest, abs=1e-6)
            assert f"fit@{scale}/noise" not in row


def test_a_client_is_compared_with_the_sum_of_the_others() -> None:
    """Parameters longer than a chunk, against numpy in double precision."""
    sizes = {"body": 2 * CHUNK + 17, "head.weight": 12, "head.bias": 4}
    updates = [
        {name: cube(10 * i + j, size).reshape(4, -1) if size == 12 else cube(10 * i + j, size)
         for j, (name, size) in enumerate(sizes.items())}
        for i in range(3)
    ]  # fmt: skip
    norms = [squared_norm(update.values()) ** 0.5 for update in updates]
    flat = [torch.cat([d.flatten() for d in update.values()]).double() for update in updates]
    for norm, vector in zip(norms, flat, strict=True):
        assert norm == pytest.approx(float(vector.norm()), rel=1e-12)
    total = {
        name: sum((u[name] / n).double() for u, n in zip(updates, norms, strict=True))
        for name in sizes
    }
    reference = {name: torch.ones_like(delta) for name, delta in updates[0].items()}
    found = describe_geometry(
        updates[0],
        reference,
        {name: torch.as_tensor(value) for name, value in total.items()},
        "head",
        own=norms[0],
        count=2,
    )
    others = flat[1] / norms[1] + flat[2] / norms[2]
    cosine = float(torch.nn.functional.cosine_similarity(flat[0], others, dim=0))
    assert found["agreement"] == pytest.approx(cosine, abs=1e-8)
    share = float(flat[0].abs().sum()) / (len(flat[0]) ** 0.5 * norms[0])
    assert found["sparsity"] == pytest.approx(share, rel=1e-9)
    assert found["reach"] == pytest.approx(np.log(norms[0] / len(flat[0]) ** 0.5), rel=1e-9)


def test_forgotten_plans_are_drawn_again() -> None:
    sketcher, update = Sketcher(seed=5), {"w": cube(1, 700), "b": cube(2, 9)}
    before = sketcher.sketch(update)
    sketcher.forget_plans()
    assert torch.equal(sketcher.sketch(update), before)
    # A count sketch keeps the sum of signed weights: every weight is in exactly one bucket.
    single = sketcher.sketch({"w": torch.eye(1, 700).flatten(), "b": torch.zeros(9)})
    assert sorted(single.abs().tolist())[-2:] == [0.0, 1.0]


def test_extrapolation_in_place_is_the_same() -> None:
    reference, update = {"w": cube(1, 50)}, {"w": cube(2, 50)}
    made = extrapolate(reference, update, norm=3.0, length=7.0)
    place = {"w": torch.empty(50)}
    written = extrapolate(reference, update, norm=3.0, length=7.0, out=place)
    assert written["w"] is place["w"]
    assert torch.equal(place["w"], made["w"])
