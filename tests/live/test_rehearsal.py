"""Live calibration and rehearsals: thresholds from honest shadows only, and small rounds filled."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_shield.cohort import ClientUpdate, Cohort
from fl_shield.descriptors.table import DescriptorTable
from fl_shield.detector.robust_rule import RobustRule
from fl_shield.errors import StateError
from fl_shield.inspection import Inspector
from fl_shield.judge.rescale import update_norms
from fl_shield.judge.verdict import Decision, Verdict
from fl_shield.live.calibration import LiveCalibration
from fl_shield.live.rehearsal import Rehearsal
from fl_shield.live.server_shadows import ServerShadows, ShadowSettings
from fl_shield.models.state import state_arrays
from fl_shield.training.local import train_locally
from tests.live import _digits

SCORES = st.lists(st.floats(-50, 50), min_size=0, max_size=80)


@given(SCORES, st.sampled_from([0.05, 0.1, 0.25]))
@examples(max_examples=60)
def test_the_shifted_threshold_is_the_order_statistic(scores: list[float], rate: float) -> None:
    calibration = LiveCalibration(rate, distinct=10**6, threshold=2.0)
    calibration.add(scores)
    kept = scores[-2 * calibration.needed :]
    rank = math.ceil(round((len(kept) + 1) * (1 - rate), 9))
    shift = calibration.shift
    if rank > len(kept):
        assert shift is None
        return
    assert shift is not None
    limit = sorted(kept)[rank - 1]
    flagged = [score - shift >= 2.0 for score in kept]
    assert flagged == [score > limit + 1e-6 * (1 + abs(limit)) * 0.999 for score in kept]
    assert sum(flagged) <= rate * (len(kept) + 1)


def test_further_honest_scores_are_flagged_no_more_often_than_asked() -> None:
    rng = np.random.default_rng(0)
    flagged = []
    for _ in range(400):
        calibration = LiveCalibration(0.1, distinct=10**6, threshold=2.0)
        calibration.add(rng.standard_t(3, 15).tolist())
        assert calibration.shift is not None
        flagged.append(float((rng.standard_t(3, 50) - calibration.shift >= 2.0).mean()))
    assert np.mean(flagged) == pytest.approx(1 / 16, abs=0.015)  # 1 - 15/16: conformal is exact


def test_too_few_clean_samples_are_one_sentence() -> None:
    four = LiveCalibration(0.05, distinct=math.comb(4, 2), threshold=2.0)
    four.add(np.arange(50.0).tolist())
    assert four.shift is None
    assert "at most 6 different honest shadows, and a false positive rate of 0.05 needs 19" in (
        four.obstacle
    )
    assert LiveCalibration(0.05, distinct=math.comb(16, 8), threshold=2.0).obstacle == ""


def test_scores_survive_a_restart_and_damage_is_named() -> None:
    first = LiveCalibration(0.1, distinct=1000, threshold=2.0)
    first.add([1.0, math.nan, 3.0, *range(10)])
    second = LiveCalibration(0.1, distinct=1000, threshold=2.0)
    second.load_state_dict(first.state_dict())
    assert second.shift == first.shift
    for wrong in (None, [None], ["3"], [math.inf]):
        with pytest.raises(StateError, match="scores of the server's shadows cannot be read"):
            second.load_state_dict(wrong)


class Watched:
    """A real inspector that remembers whom it described."""

    def __init__(self, inspector: Inspector) -> None:
        self.inspector, self.cohorts = inspector, []  # type: ignore[var-annotated]

    def describe(self, cohort: Cohort) -> DescriptorTable:
        """Describe, and remember."""
        self.cohorts.append([client.client_id for client in cohort.clients])
        return self.inspector.describe(cohort)


def honest(number: int) -> ClientUpdate:
    """Return a client that trained honestly."""
    model = _digits.model()
    train_locally(model, _digits.client(number), _digits.TRAINING, seed=number)
    state = state_arrays(model)
    return ClientUpdate(100 + number, 100.0, lambda: state)


def cohort(number: int, *clients: ClientUpdate) -> Cohort:
    """Return a round of the clients."""
    return Cohort(number, state_arrays(_digits.model()), clients)


def rehearsal(**options: float) -> tuple[Rehearsal, Watched]:
    """Return a rehearsal of the digits, and its inspector."""
    settings = ShadowSettings(**{"benign": 4, "poisoned": 2, **options})  # type: ignore[arg-type]
    shadows = ServerShadows(_digits.model(), _digits.probes(16), settings)
    return Rehearsal(shadows, 2.0), Watched(Inspector(_digits.model(), _digits.probes(16)))


def test_a_small_round_is_filled_up_and_a_large_one_is_not() -> None:
    held, inspector = rehearsal(poisoned=0)
    one = held.score(inspector, RobustRule(), cohort(1, honest(0)), 3)
    assert inspector.cohorts == [[100, -1, -2, -3, -4]]
    assert (len(one.table), one.scores.shape, one.others) == (1, (1,), 4)
    assert one.contributions.shape == (1, len(one.table.names))
    three = cohort(2, *(honest(n) for n in range(3)))
    many = held.score(inspector, RobustRule(), three, 3)
    assert inspector.cohorts[1:] == [[100, 101, 102]]
    assert many.others == 0
    alone = RobustRule().score(inspector.inspector.describe(three))
    assert np.allclose(many.scores, alone)


def test_shadows_are_made_anew_every_so_many_rounds() -> None:
    held, inspector = rehearsal(every=3, benign=4, poisoned=1)
    clients = [honest(n) for n in range(3)]
    for number in range(1, 8):
        held.score(inspector, RobustRule(), cohort(number, *clients), 3)
    shadows_only = [ids for ids in inspector.cohorts if all(i < 0 for i in ids)]
    assert len(shadows_only) == 3  # rounds 1, 4 and 7
    assert all(len(ids) == 5 for ids in shadows_only)


def test_no_score_of_a_client_moves_the_calibration() -> None:
    """A malicious client of the same norm leaves the live calibration as an honest one does."""
    shifts = []
    for wild in (False, True):
        held, inspector = rehearsal(benign=4, poisoned=0, false_alarms=0.25)
        client = honest(0)
        if wild:
            client = _same_norm_noise(client)
        held.score(inspector, RobustRule(), cohort(1, client), 3)
        assert held.calibration is not None
        shifts.append(held.calibration.shift)
    assert shifts[0] is not None
    assert shifts[0] == pytest.approx(shifts[1], abs=1e-3)


def _same_norm_noise(client: ClientUpdate) -> ClientUpdate:
    reference, state = state_arrays(_digits.model()), client.load()
    rng = np.random.default_rng(5)
    noise = {k: rng.standard_normal(a.shape) for k, a in reference.items()}
    zero = {k: np.zeros_like(a) for k, a in noise.items()}
    names = frozenset(reference)
    factor = update_norms(state, reference, names).parameters / update_norms(noise, zero).parameters
    moved = {k: np.asarray(reference[k], dtype=np.float64) + factor * noise[k] for k in reference}
    return ClientUpdate(client.client_id, 100.0, lambda: moved)


def test_the_calibration_shifts_the_scores_of_clients() -> None:
    held, inspector = rehearsal(benign=5, poisoned=0, false_alarms=0.25)
    three = cohort(1, *(honest(n) for n in range(3)))
    found = held.score(inspector, RobustRule(), three, 3)
    plain = RobustRule().score(inspector.inspector.describe(three))
    assert held.shift != 0.0
    assert np.allclose(found.scores, plain - held.shift)


def test_shadows_that_fail_cost_no_round() -> None:
    class Failing(Watched):
        def describe(self, cohort: Cohort) -> DescriptorTable:
            if all(client.client_id < 0 for client in cohort.clients):
                raise RuntimeError("no rehearsal today")
            return super().describe(cohort)

    held, _ = rehearsal(false_alarms=0.25)
    inspector = Failing(Inspector(_digits.model(), _digits.probes(16)))
    three = cohort(1, *(honest(n) for n in range(3)))
    scores = held.score(inspector, RobustRule(), three, 3).scores
    assert np.allclose(scores, RobustRule().score(inspector.inspector.describe(three)))


class Sees:
    """Scores 9 whoever stands at one of the places."""

    name = "by place"

    def __init__(self, *places: int) -> None:
        self.places = places

    def score(self, table: DescriptorTable) -> NDArray[np.float64]:
        """Return 9 at the places, −9 elsewhere."""
        return np.array([9.0 if i in self.places else -9.0 for i in range(len(table))])

    def contributions(self, table: DescriptorTable) -> NDArray[np.float64]:
        """Return nothing."""
        return np.zeros((len(table), len(table.names)))


def test_power_is_the_share_of_poisoned_shadows_above_the_threshold() -> None:
    held, inspector = rehearsal(benign=4, poisoned=2)
    held.score(inspector, Sees(5), cohort(1, *(honest(n) for n in range(3))), 3)
    assert held.power == (1, 2)
    assert held.metrics() == {"shield-power": 0.5}
    found = held.score(inspector, Sees(), cohort(2, honest(0)), 3)
    kept = Verdict(1, 100, Decision.KEEP, 0.0, 0.0, 1.0, (), "")
    (said,) = held.remarked([kept], found)
    assert said.detail == (
        "judged among 4 shadows of the server. the detector would see 0 of 2 poisoned shadows."
    )
