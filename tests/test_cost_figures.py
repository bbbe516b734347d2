"""Arithmetic of the cost benchmark against hand-computed cases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cost_figures import (
    BUDGET_BYTES,
    allowed_bytes,
    beyond_floor,
    exponent,
    held_bytes,
    kept_bytes,
    over_floor,
    per_client,
    predicted_seconds,
    verdict,
)
from benchmarks.cost_models import SIZES, LazyCohort, local_training, parameters_of
from benchmarks.cost_page import shares, targets

SHIELD = {
    "kind": "shield", "model": "small", "clients": 10, "probes": 16, "seconds": 5.0,
    "search_seconds": 1.0, "floor_seconds_per_client": 0.25, "samples_per_client": 250,
    "parameters": 1_000_000, "peak_bytes": 5_000_000, "describe_peak_bytes": 4_000_000,
}  # fmt: skip


@given(st.floats(0.5, 3.0), st.floats(1e-3, 10.0))
def test_the_exponent_of_a_power_law_is_its_own(power: float, unit: float) -> None:
    clients = [10.0, 100.0, 1000.0]
    found = exponent(clients, [unit * count**power for count in clients])
    assert found == pytest.approx(power, abs=1e-9)
    assert exponent([10.0], [1.0]) is None


def test_what_a_round_costs_once_is_no_cost_of_a_client() -> None:
    assert per_client(SHIELD) == pytest.approx(0.4)
    assert over_floor(SHIELD) == pytest.approx(1.6)
    assert beyond_floor(SHIELD) == pytest.approx(0.4 - 1.5 * 0.25)
    assert beyond_floor({**SHIELD, "floor_seconds_per_client": 2.5}) == 0.0
    assert per_client({"clients": 4, "seconds": 2.0}) == pytest.approx(0.5)


def test_memory_is_allowed_by_the_model_and_not_by_the_clients() -> None:
    assert allowed_bytes(1_000_000) == 16_000_000 + BUDGET_BYTES
    pair = [{**SHIELD, "clients": n, "peak_bytes": 10**6 + 200 * n} for n in (10, 1000)]
    assert kept_bytes(pair) == pytest.approx(200.0)
    assert kept_bytes(pair[:1]) is None
    assert held_bytes("flame", 100, 1_000_000, 16) == 4e8
    assert held_bytes("multi_krum", 100, 1_000_000, 16) == 12e8
    assert held_bytes("flare", 10, 1_000_000, 16) == 4 * 8 * 160**2


def test_long_cells_are_foreseen() -> None:
    cell = {"rival": "flame", "clients": 100}
    assert predicted_seconds(cell, None, SHIELD) is None
    fewer = {"clients": 10, "seconds": 1.0, "load_seconds": 0.5}
    assert predicted_seconds(cell, fewer, SHIELD) == pytest.approx(15.0)
    assert predicted_seconds(cell, fewer, SHIELD, growth=2.0) == pytest.approx(150.0)
    # 60,000 noise inputs through ten clients and the global model, a millisecond each.
    deepsight = {"rival": "deepsight", "clients": 10}
    assert predicted_seconds(deepsight, None, SHIELD) == pytest.approx(660.0)


def test_targets_take_the_worst_cell() -> None:
    rival = {"kind": "rival", "rival": "flare", "model": "small", "clients": 10, "seconds": 8.0}
    faster = {**SHIELD, "clients": 100, "seconds": 31.0}
    real = {
        "kind": "round", "model": "large", "clients": 20, "samples": 500, "probes": [16],
        "training_seconds": 90.0, "averaging_seconds": 5.0, "shield_seconds_16": 5.0,
    }  # fmt: skip
    assert shares(real) == {16: pytest.approx(0.05)}
    found = {entry["target"]: entry for entry in targets([SHIELD, faster, rival, real])}
    beyond = found["time of one more client beyond 1.5 floors, in ms"]
    assert (beyond["worst"], beyond["verdict"]) == (pytest.approx(25.0), "missed")
    share = found["share of a round, 16 clean samples, 500 samples a client"]
    assert (share["worst"], share["verdict"]) == (pytest.approx(0.05), "met")
    assert found["time over that of FLARE"]["worst"] == pytest.approx(5.0 / 8.0)
    assert found["exponent of time over clients"]["worst"] == pytest.approx(0.875, abs=1e-3)
    assert found["time over that of DeepSight, 3 x 20,000 noise inputs"]["worst"] is None
    assert verdict(None, 1.0) == "not measured"


def test_the_models_have_the_sizes_that_are_compared() -> None:
    sizes = {name: parameters_of(size.model()) for name, size in SIZES.items()}
    assert sizes["small"] == pytest.approx(5e4, rel=0.1)
    assert sizes["medium"] == pytest.approx(1e6, rel=0.2)
    assert sizes["large"] == pytest.approx(11e6, rel=0.05)
    assert {local_training(size.training).epochs for size in SIZES.values()} == {1}


def test_clients_are_made_when_asked_for_and_always_the_same() -> None:
    model = SIZES["small"].model()
    cohort = LazyCohort(model).of(3)
    one, again, other = (cohort.clients[i].load() for i in (0, 0, 1))
    assert list(one) == list(cohort.reference)
    for name, array in cohort.reference.items():
        assert one[name].shape == array.shape
        assert (one[name] == again[name]).all()
        assert (one[name] != other[name]).any()
        assert (one[name] != array).any()
