"""Edge cases by hand, pixel by pixel."""

from __future__ import annotations

import pytest
import torch

from fl_shield.data.task import Split, Task, TaskSpec
from fl_shield.errors import ConfigurationError
from fl_shield.triggers.edge_case import EdgeCase

SQUARE = torch.tensor([[0.1, 0.2], [0.3, 0.4]])


def task(channels: int, height: int, width: int) -> Task:
    split = Split(torch.zeros(2, channels, height, width, dtype=torch.uint8), torch.tensor([0, 1]))
    spec = TaskSpec("image", (channels, height, width), 2)
    return Task("tiny", spec, split, split, ("a", "b"))


@pytest.mark.parametrize(
    ("trigger", "wanted"),
    [
        (EdgeCase(kind="negative"), [[0.9, 0.8], [0.7, 0.6]]),
        (EdgeCase(kind="quarter_turn"), [[0.2, 0.4], [0.1, 0.3]]),
        (EdgeCase(kind="half_turn"), [[0.4, 0.3], [0.2, 0.1]]),
    ],
    ids=str,
)
def test_grey_images_by_hand(trigger: EdgeCase, wanted: list[list[float]]) -> None:
    shown = trigger.bind(task(1, 2, 2)).apply(SQUARE.expand(3, 1, 2, 2))
    torch.testing.assert_close(shown, torch.tensor(wanted).expand(3, 1, 2, 2))


def test_recolouring_moves_red_to_green_green_to_blue_blue_to_red() -> None:
    red, green, blue = torch.eye(3)[:, :, None, None]
    trigger = EdgeCase(kind="recoloured").bind(task(3, 1, 1))
    for before, after in ((red, green), (green, blue), (blue, red)):
        assert torch.equal(trigger.apply(before[None])[0], after)


@pytest.mark.parametrize("kind", ["negative", "quarter_turn", "half_turn", "recoloured"])
def test_nothing_is_lost(kind: str) -> None:
    """Every kind is a bijection of images: done often enough, it gives back what it was."""
    trigger = EdgeCase(kind=kind)  # type: ignore[arg-type]
    images = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    shown = images
    for _ in range(12):  # a multiple of 2, 3 and 4
        shown = trigger.apply(shown)
    torch.testing.assert_close(shown, images)


def test_only_square_images_are_turned_by_a_quarter() -> None:
    assert EdgeCase(kind="half_turn").bind(task(1, 4, 6)) == EdgeCase(kind="half_turn")
    with pytest.raises(ConfigurationError, match=r"got 4x6.*kind=half_turn"):
        EdgeCase(kind="quarter_turn").bind(task(1, 4, 6))
