"""Little is enough: the box of the cohort's spread, and how wide it may be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fl_shield.attacks.little_is_enough import LittleIsEnough, largest_z
from fl_shield.errors import ConfigurationError
from tests.attacks._attackers import knowing, line

HONEST = [{"weight": torch.tensor([[first, 2.0]])} for first in (0.0, 2.0, 4.0)]
"""Mean 2 and 2; deviations sqrt(8 / 3) and 0."""


def test_parameters_are_clipped_to_the_mean_and_z_deviations() -> None:
    plain = LittleIsEnough(z=1.5, boost=1.0, num_shadows=3)
    attack = plain.begin(line(0.0, 0.0), knowing(benign=HONEST))
    reach = 1.5 * (8 / 3) ** 0.5
    for trained, wanted in ((9.0, 2 + reach), (-9.0, 2 - reach), (3.0, 3.0)):
        crafted = attack.craft({}, {"weight": torch.tensor([[trained, trained]])})
        assert crafted["weight"][0].tolist() == pytest.approx([wanted, 2.0])


def test_deviations_are_boosted_before_they_are_clipped() -> None:
    boosted = LittleIsEnough(z=1.5, boost=3.0, num_shadows=3)
    attack = boosted.begin(line(0.0, 0.0), knowing(benign=HONEST))
    for trained, wanted in ((2.5, 3.5), (0.0, 2 - 1.5 * (8 / 3) ** 0.5), (2.0, 2.0)):
        crafted = attack.craft({}, {"weight": torch.tensor([[trained, trained]])})
        assert crafted["weight"][0].tolist() == pytest.approx([wanted, 2.0])


def test_training_stays_in_the_box() -> None:
    model = line(9.0, 9.0)
    attack = LittleIsEnough(z=1.5, num_shadows=3).begin(model, knowing(benign=HONEST))
    attack.after_step(model, {"weight": torch.zeros(1, 2)}, 1)
    assert model.weight[0].tolist() == pytest.approx([2 + 1.5 * (8 / 3) ** 0.5, 2.0])


def test_as_many_honest_trainings_as_named() -> None:
    """Of two, the mean is 1 and the deviation 1."""
    attack = LittleIsEnough(z=1.0, num_shadows=2).begin(nn.Identity(), knowing(benign=HONEST))
    crafted = attack.craft({}, {"weight": torch.tensor([[9.0, 9.0]])})
    assert crafted["weight"][0].tolist() == pytest.approx([2.0, 2.0])


@pytest.mark.parametrize(
    ("clients", "attackers", "z"),
    [
        # Tables of the normal distribution: Φ(1.43) = 0.9236, Φ(0.39) = 0.6517, Φ(0.16) = 0.5636.
        (50, 24, 1.426),  # s = 2, (26 - 2) / 26 = 0.923
        (20, 8, 0.674),  # s = 3, (12 - 3) / 12 = 0.75: the upper quartile
        (20, 4, 0.157),  # s = 7, (16 - 7) / 16 = 0.5625
    ],
)
def test_the_width_of_the_paper(clients: int, attackers: int, z: float) -> None:
    assert largest_z(clients, attackers) == pytest.approx(z, abs=2e-3)


@pytest.mark.parametrize("attackers", [0, 11])
def test_no_width_without_attackers_or_for_a_majority_of_them(attackers: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"from 1 to 10 of 20, got {attackers}"):
        largest_z(20, attackers)
