"""Statistics of single inputs against hand-computed cases; what they are invariant to."""

import math

import numpy as np
import pytest
import torch

from fl_shield.errors import ConfigurationError, ModelError
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.scanning.describing import SampleDescriber
from fl_shield.scanning.protocol import Held
from fl_shield.scanning.reading import Reading
from fl_shield.scanning.sample_descriptors import (
    Background,
    describe_itself,
    describe_view,
    margins,
)
from tests.scanning._tasks import (
    IMAGES,
    held_images,
    held_texts,
    images,
    texts,
    with_pixel,
    with_word,
)

CLEAN = Reading(
    torch.tensor([[2.0, 0.0], [0.0, 4.0], [3.0, 0.0]]),
    torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]),
)


def test_margins_by_hand() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0], [1.0, 5.0, 3.0]])
    assert margins(logits, torch.tensor([1, 0])).tolist() == [2.0, -4.0]


def test_background_by_hand() -> None:
    background = Background.of(CLEAN)
    assert background.mean.tolist() == pytest.approx([1.0, 1 / 3])
    assert background.unit == pytest.approx(3.0)  # margins 2, 4, 3
    assert background.norm == 1.0
    assert background.distance == pytest.approx(math.sqrt(2))  # 1, √2, √5
    assert background.without(2).mean.tolist() == [0.5, 0.5]


def test_itself_by_hand() -> None:
    own = Reading(torch.tensor([[6.0, 0.0]]), torch.tensor([[3.0, 0.0]]))
    found = describe_itself(own, Background.of(CLEAN))
    assert found["confidence"] == pytest.approx(2.0)
    assert found["peak"] == pytest.approx(1.0)
    assert found["norm"] == pytest.approx(math.log(3.0))
    assert found["nearest"] == pytest.approx(1.0 / math.sqrt(2))
    # z − m = (2, −1/3) and the mean of those of class 0 less m = (1/2, −1/3).
    wanted = (1 + 1 / 9) / (math.hypot(2, 1 / 3) * math.hypot(0.5, 1 / 3))
    assert found["typical"] == pytest.approx(wanted)


def test_views_by_hand() -> None:
    own = Reading(torch.tensor([[4.0, 0.0]]), torch.tensor([[3.0, 1.0]]))
    partners = Reading(torch.zeros(2, 2), torch.tensor([[1.0, 1.0], [3.0, 0.0]]))
    seen = Reading(
        torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]]), torch.tensor([[2.0, 1.0], [3.0, 1.0]])
    )
    background = Background.of(CLEAN)
    found = describe_view("mix", seen, own, partners, background)
    assert found["kept@mix"] == pytest.approx((0.75 + 0.5) / 2)
    assert found["gain@mix"] == pytest.approx(0.125)
    assert found["margin@mix"] == pytest.approx(math.log(3.0) / 2 / 3.0)
    assert found["pull@mix"] == pytest.approx((0.5 + 1.0) / 2)
    two_bits = 2 - 0.75 * math.log2(3)  # entropy of (3/4, 1/4)
    assert found["entropy@mix"] == pytest.approx((two_bits + 1.0) / 2)
    a, b = np.array([1.0, 2 / 3]), np.array([2.0, 2 / 3])  # activations less their mean (1, 1/3)
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert found["alike@mix"] == pytest.approx(cosine, rel=1e-5)
    assert found["near@mix"] == pytest.approx((cosine + 1.0) / 2, rel=1e-5)


def test_a_single_row_has_neither_pull_nor_alike() -> None:
    own = Reading(torch.tensor([[4.0, 0.0]]), torch.tensor([[3.0, 1.0]]))
    found = describe_view("blurred", own, own, CLEAN, Background.of(CLEAN))
    assert found["near@blurred"] == pytest.approx(1.0)
    assert not {"pull@blurred", "alike@blurred"} & set(found)


@pytest.mark.parametrize(
    ("held", "inputs", "triggered"),
    [
        (held_images(16), images(8, seed=5)[0][::2], with_pixel(images(8, seed=5)[0][::2])),
        (held_texts(16), texts(8, seed=5)[0][::2], with_word(texts(8, seed=5)[0][::2])),
    ],
    ids=["images", "texts"],
)
def test_a_trigger_takes_clean_inputs_along(
    held: Held, inputs: torch.Tensor, triggered: torch.Tensor
) -> None:
    """Inputs are of class 0 and the trigger means class 1, whatever it is pasted into."""
    describer = SampleDescriber(held, "test")
    column = {name: k for k, name in enumerate(describer.names)}
    clean, bad = describer.describe(inputs), describer.describe(triggered)
    fine = column["gain@fine"]
    assert (bad[:, fine] > 0.9).all()
    assert (clean[:, fine] < bad[:, fine].min()).all()
    kept = column["kept@erased"]
    assert bad[:, kept].mean() < 0.2  # without the part it is a clean input of class 0 again


def test_rows_depend_on_no_other_input_and_are_finite() -> None:
    describer = SampleDescriber(held_images(16), "test")
    inputs, _ = images(6, seed=7)
    rows = describer.describe(inputs)
    np.testing.assert_allclose(rows[3:4], describer.describe(inputs[3:4]), atol=1e-6)
    assert np.isfinite(rows).all()
    assert np.isfinite(describer.reference()).all()
    assert describer.describe(inputs[:0]).shape == (0, len(describer.names))
    assert np.isfinite(describer.describe(torch.zeros(1, 1, 4, 4))).all()


def test_neurons_may_be_shuffled_and_scaled() -> None:
    """The same function with its penultimate neurons in another order, and twice as large."""

    def build(order: list[int], scale: float) -> torch.nn.Module:
        torch.manual_seed(0)
        hidden, head = torch.nn.Linear(16, 5), torch.nn.Linear(5, 3)
        with torch.no_grad():
            hidden.weight.copy_(hidden.weight[order] * scale)
            hidden.bias.copy_(hidden.bias[order] * scale)
            head.weight.copy_(head.weight[:, order] / scale)
        return torch.nn.Sequential(torch.nn.Flatten(), hidden, torch.nn.ReLU(), head)

    inputs, _ = images(5, seed=9)
    one = SampleDescriber(held_images(8, build([0, 1, 2, 3, 4], 1.0)), "test").describe(inputs)
    other = SampleDescriber(held_images(8, build([3, 1, 4, 0, 2], 2.0)), "test").describe(inputs)
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match="there is no model"):
        SampleDescriber(Held(clean=ProbeSet(images(8)[0]), spec=IMAGES), "test")

    class Sum(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = torch.nn.Linear(16, 2), torch.nn.Linear(16, 2)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            flat = inputs.flatten(1)
            total: torch.Tensor = self.one(flat) + self.two(flat)
            return total

    with pytest.raises(ModelError, match="penultimate layer of the model was not found"):
        SampleDescriber(held_images(8, Sum()), "test")
