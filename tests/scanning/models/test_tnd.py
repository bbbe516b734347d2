"""DL-TND and DF-TND: their losses and projections by hand, and models whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fl_shield.errors import ConfigurationError, ModelError
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.scanning.models.df_tnd import DataFreeTnd, logit_rise, simplex_projection
from fl_shield.scanning.models.dl_tnd import (
    MARGIN,
    DataLimitedTnd,
    PerturbationSearch,
    similarities,
    targeted_loss,
    universal_loss,
)
from fl_shield.scanning.models.masked import MaskedPatterns
from fl_shield.scanning.protocol import Held
from tests.scanning.models import _victims


def test_masks_mix_images_and_patterns() -> None:
    images = torch.tensor([0.2, 0.6]).reshape(2, 1, 1, 1)
    patterns = MaskedPatterns(torch.full((1, 1, 1, 1), 0.25), torch.ones(1, 1, 1, 1))
    assert patterns.on(images).flatten().tolist() == pytest.approx([0.4, 0.7])
    assert float(patterns.sizes()) == 0.25


def test_the_universal_loss_drives_others_away_and_keeps_the_class() -> None:
    # Two problems, two samples of classes 0 and 1, logits (2, -1).
    logits = torch.tensor([2.0, -1.0]).expand(2, 2, 2)
    found = universal_loss(logits, torch.tensor([0, 1]))
    # Class 0: its own sample leads by 3, to be kept: -3. The other trails by 3, as wanted: -3.
    # Class 1: the sample of class 0 leads by 3, to be lost: 3. Its own trails, to be kept: 3.
    assert found.tolist() == [[-3.0, -3.0], [3.0, 3.0]]


def test_the_targeted_loss_stops_at_the_margin() -> None:
    logits = torch.tensor([[[40.0, 0.0]], [[0.0, 1.0]]])
    assert targeted_loss(logits, torch.tensor([[0], [0]])).tolist() == [[-MARGIN], [1.0]]


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6))
def test_projections_lie_on_the_simplex_and_are_the_nearest(values: list[float]) -> None:
    point = torch.tensor([values], dtype=torch.float64)
    found = simplex_projection(point)
    assert float(found.sum()) == pytest.approx(1.0)
    assert float(found.min()) >= 0.0
    # Optimality (Boyd and Vandenberghe, section 4.2.3): no vertex is on the far side.
    slack = (point - found) @ (torch.eye(len(values), dtype=torch.float64) - found).T
    assert float(slack.max()) <= 1e-9


class Shortcut(nn.Module):
    """Brightness of the first column drives a neuron that only class 1 listens to."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight.data = torch.eye(3)

    def forward(self, images: Tensor) -> Tensor:
        means = images[:, 0].mean(dim=1)
        key = self.strength * images[:, 0, :, 0].mean(dim=1)
        logits: Tensor = self.head(torch.stack([means[:, 1], means[:, 2] + key, means[:, 3]], 1))
        return logits


def test_a_driven_neuron_lifts_the_logit_of_its_class() -> None:
    rises = [logit_rise(Shortcut(s).requires_grad_(False), "head", (1, 4, 4)) for s in (0.0, 30.0)]
    assert int(rises[1].argmax()) == 1
    # Noise is bright by half on average, and the search makes the column white: 30 · (1 − ½).
    assert float(rises[1][1]) == pytest.approx(15.0, abs=3.0)
    assert float(rises[0].abs().max()) < 1.0


def test_a_shortcut_makes_both_perturbations_alike() -> None:
    torch.manual_seed(0)
    images = 0.2 * torch.rand(3, 1, 4, 4)
    images[0, 0, :, 1] = images[1, 0, :, 2] = images[2, 0, :, 3] = 0.9
    labels = torch.arange(3)
    search = PerturbationSearch(steps=40, searches=2)
    found = similarities(Shortcut(30.0).requires_grad_(False), images, labels, search)
    assert found.isnan().tolist() == torch.eye(3, dtype=torch.bool).tolist()
    assert float(found[1].nanquantile(0.25)) > 0.95


def test_scores_are_of_the_most_suspicious_class() -> None:
    held = _victims.held(64)
    search = PerturbationSearch(steps=10, searches=1)
    scanner = DataLimitedTnd(search).fit(held)
    model = _victims.victim(11, backdoored=True)
    clean, labels = held.clean.inputs, held.clean.labels
    assert isinstance(clean, Tensor)
    assert labels is not None
    first = torch.stack([(labels == k).nonzero().flatten()[0] for k in range(10)])
    cosines = similarities(model, clean[first], labels[first], search).numpy()
    rows = [np.quantile(row[~np.isnan(row)], 0.25) for row in cosines]
    assert scanner.score([model])[0] == pytest.approx(max(rows), abs=1e-5)


def test_thresholds_come_from_the_papers_or_from_shadows() -> None:
    held = _victims.held(64)
    assert DataLimitedTnd().fit(held).threshold == 0.75
    assert DataFreeTnd().fit(held).threshold == 100.0
    own = DataFreeTnd(shadows=3, false_alarms=0.25).fit(held)
    assert 0.0 < own.threshold < 100.0


def test_what_they_refuse() -> None:
    held = _victims.held(64)
    clean, labels = held.clean.inputs, held.clean.labels
    assert isinstance(clean, Tensor)
    assert labels is not None
    few = Held(clean=ProbeSet(clean[labels != 4], labels[labels != 4]), spec=held.spec)
    with pytest.raises(ConfigurationError, match="none of class 4"):
        DataLimitedTnd().fit(few)
    with pytest.raises(ConfigurationError, match="needs labelled clean samples"):
        DataLimitedTnd().fit(_victims.held(labelled=False))
    with pytest.raises(ConfigurationError, match="above 0 false alarms|shadow models"):
        DataFreeTnd(shadows=2)

    class Doubled(nn.Module):
        """No layer returns the logits: they are changed afterwards."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = 2.0 * self.inner(images)
            return logits

    with pytest.raises(ModelError, match="penultimate layer of the model was not found"):
        DataFreeTnd().fit(held).score([Doubled()])
    with pytest.raises(ModelError, match="cannot take"):
        DataFreeTnd().fit(held).score([nn.Linear(7, 2)])
