"""Image triggers against hand-computed pixels, and the properties that all of them share."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_shield.data.task import Split, Task, TaskSpec
from fl_shield.errors import ConfigurationError
from fl_shield.triggers.a3fl import A3fl
from fl_shield.triggers.blend import Blend
from fl_shield.triggers.box_pattern import BoxPattern
from fl_shield.triggers.dba import Dba
from fl_shield.triggers.edge_case import EdgeCase
from fl_shield.triggers.jumbo import JumboDistribution, JumboTrigger
from fl_shield.triggers.patch import Patch
from fl_shield.triggers.pixel_box import PixelBox
from fl_shield.triggers.protocol import DistributedTrigger, Trigger
from fl_shield.triggers.sig import Sig
from fl_shield.triggers.untouched import Untouched
from fl_shield.triggers.warp import Warp

TRIGGERS: list[Trigger] = [
    Patch(),
    Patch(size=0.25, pattern="checkerboard", corner="top-left"),
    Patch(size=1, value=0.5),
    Blend(),
    Sig(frequency=1),
    Dba(),
    Dba(only=2),
    BoxPattern(size=3, top=1, left=2, opacity=0.4, noise="colour"),
    BoxPattern(size=None, opacity=0.1),
    Warp(),
    Warp(grid=2, strength=2, seed=3),
    EdgeCase(),
    EdgeCase(kind="quarter_turn"),
    EdgeCase(kind="half_turn"),
    A3fl(),
    A3fl(size=3, start=1.0),
]
IDEMPOTENT = [t for t in TRIGGERS if isinstance(t, Patch | Dba | A3fl)]


def image_task(channels: int = 1, height: int = 8, width: int = 8) -> Task:
    split = Split(torch.zeros(2, channels, height, width, dtype=torch.uint8), torch.tensor([0, 1]))
    spec = TaskSpec("image", (channels, height, width), 2)
    return Task("tiny", spec, split, split, ("a", "b"))


TEXT_TASK = Task(
    "texts",
    TaskSpec("text", (8,), 2, vocab_size=20),
    Split(torch.zeros(2, 8, dtype=torch.int64), torch.tensor([0, 1])),
    Split(torch.zeros(2, 8, dtype=torch.int64), torch.tensor([0, 1])),
    ("a", "b"),
)


def lit(trigger: Trigger, height: int = 4, width: int = 4) -> list[tuple[int, int]]:
    """Return the pixels of a black image that a trigger changes."""
    image = trigger.apply(torch.zeros(1, 1, height, width))[0, 0]
    return [(int(row), int(column)) for row, column in image.nonzero()]


@pytest.mark.parametrize(
    ("trigger", "pixels"),
    [
        (Patch(size=2), [(2, 2), (2, 3), (3, 2), (3, 3)]),
        (Patch(size=2, corner="top-right"), [(0, 2), (0, 3), (1, 2), (1, 3)]),
        (Patch(size=2, margin=1, corner="bottom-left"), [(1, 1), (1, 2), (2, 1), (2, 2)]),
        (Patch(size=1, position=(0, 3)), [(0, 3)]),
        (Patch(size=0.5, corner="top-left"), [(0, 0), (0, 1), (1, 0), (1, 1)]),
        (Patch(size=0.01), [(3, 3)]),
        (
            Patch(size=3, pattern="checkerboard", corner="top-left"),
            [(0, 0), (0, 2), (1, 1), (2, 0), (2, 2)],
        ),
        (
            Patch(size=4, pattern="cross"),
            [(0, 0), (0, 3), (1, 1), (1, 2), (2, 1), (2, 2), (3, 0), (3, 3)],
        ),
        (Dba(bar_width=1, gap=1), [(0, 0), (0, 2), (2, 0), (2, 2)]),
        (Dba(bar_width=1, gap=0, position=(1, 1), only=3), [(2, 2)]),
    ],
    ids=str,
)
def test_sets_exactly_these_pixels(trigger: Trigger, pixels: list[tuple[int, int]]) -> None:
    assert lit(trigger) == pixels


def test_a_patch_has_one_value_for_each_channel() -> None:
    triggered = Patch(size=1, value=(0.25, 0.5, 1.0)).apply(torch.zeros(1, 3, 4, 4))
    assert triggered[0, :, 3, 3].tolist() == [0.25, 0.5, 1.0]
    assert triggered.sum() == 1.75


def test_dba_has_the_paper_s_bars_on_32_pixels() -> None:
    columns = [*range(6), *range(9, 15)]
    assert lit(Dba(), 32, 32) == [(row, column) for row in (0, 4) for column in columns]


def test_dba_parts_are_dealt_in_turn_and_make_up_the_whole() -> None:
    whole, image = Dba(), torch.zeros(1, 1, 16, 16)
    parts = [whole.part(index).apply(image) for index in range(4)]
    assert torch.equal(torch.stack(parts).sum(dim=0), whole.apply(image))
    assert whole.part(5) == whole.part(1)
    assert isinstance(whole, DistributedTrigger)
    assert not isinstance(Patch(), DistributedTrigger)


def test_blend_mixes_the_seeded_pattern() -> None:
    pattern = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(3))
    images = torch.full((2, 1, 4, 4), 0.5)
    assert torch.allclose(
        Blend(alpha=0.25, seed=3).apply(images), (0.375 + 0.25 * pattern).expand(2, -1, -1, -1)
    )


def test_sig_adds_a_sinusoid_over_the_columns() -> None:
    triggered = Sig(delta=0.2, frequency=1).apply(torch.full((1, 1, 2, 8), 0.5))
    for column in range(8):
        wave = 0.5 + 0.2 * math.sin(2 * math.pi * column / 8)
        assert triggered[0, 0, :, column].tolist() == pytest.approx([wave, wave])


def test_sig_is_clipped() -> None:
    triggered = Sig(delta=0.5, frequency=1).apply(
        torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 1, 8)
    )
    assert triggered.min() == 0
    assert triggered.max() == 1


def test_box_pattern_follows_the_equation() -> None:
    """X' = (1-m)x + m((1-a)t + a x), with a = 1 - opacity."""
    trigger = BoxPattern(size=2, top=1, left=0, opacity=0.3, seed=5)
    pattern = BoxPattern(size=2, top=1, left=0, opacity=1.0, seed=5).apply(torch.zeros(1, 1, 4, 4))
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 1:3, 0:2] = 1
    image = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    wanted = (1 - mask) * image + mask * (0.3 * pattern + 0.7 * image)
    assert torch.allclose(trigger.apply(image), wanted)
    assert set(pattern.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("trigger", TRIGGERS, ids=str)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    samples=st.integers(0, 3),
    channels=st.sampled_from([1, 3]),
    side=st.integers(8, 20),
    double=st.booleans(),
)
def test_keeps_shape_dtype_range_and_input(
    trigger: Trigger, seed: int, samples: int, channels: int, side: int, double: bool
) -> None:
    dtype = torch.float64 if double else torch.float32
    source = torch.Generator().manual_seed(seed)
    images = torch.rand(samples, channels, side, side, generator=source, dtype=dtype)
    before = images.clone()
    triggered = trigger.apply(images)
    assert triggered.shape == images.shape
    assert triggered.dtype == dtype
    assert torch.equal(images, before)
    assert not samples or (triggered.min() >= 0 and triggered.max() <= 1)
    assert torch.equal(trigger.apply(images), triggered)
    assert not samples or not torch.equal(triggered, images)


@pytest.mark.parametrize("trigger", IDEMPOTENT, ids=str)
def test_opaque_triggers_are_idempotent(trigger: Trigger) -> None:
    once = trigger.apply(torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(trigger.apply(once), once)


@pytest.mark.parametrize("trigger", TRIGGERS, ids=str)
def test_repr_rebuilds_and_binding_checks_the_modality(trigger: Trigger) -> None:
    assert eval(repr(trigger)) == trigger
    assert trigger.bind(image_task()) == trigger
    with pytest.raises(ConfigurationError, match=r"for text inputs.*choose, for example, word"):
        trigger.bind(TEXT_TASK)


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        (Patch(size=9), r"inside the 8x8 images, got a 9x9 patch.*Lower trigger\.size"),
        (Patch(size=8, margin=1), r"upper left pixel at row -1, column -1"),
        (Patch(size=2, position=(0, 7)), r"at row 0, column 7"),
        (Patch(value=(1.0, 0.0)), r"one for each of the 1 channel"),
        (Dba(bar_width=6), r"inside the 8x8 images, got a bar of 1x6 pixels"),
        (BoxPattern(size=3, top=6), r"a box inside the 8x8 images"),
        (A3fl(size=7), r"got a 7x7 patch with its upper left pixel at row 2, column 2"),
        (PixelBox(values=(((0.5,),),), top=8), r"inside the 1x8x8 images, got 1x1x1 at row 8"),
        (PixelBox(values=(((0.5,),),) * 3), r"got 3x1x1 at row 0"),
        (Warp(grid=9), r"at most the 8 pixels of a side, got 9"),
        (EdgeCase(kind="recoloured"), r"3 channels to recolour, got 1.*kind=negative"),
        (Sig(frequency=4), r"not zero at each of the 8 columns, got 4.*for example 1"),
    ],
    ids=repr,
)
def test_what_does_not_fit_the_images_is_refused(trigger: Trigger, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        trigger.bind(image_task())


@pytest.mark.parametrize(
    ("trigger", "settings", "message"),
    [
        (Patch, {"size": 0}, r"`trigger\.size` to be a number of pixels.*got 0"),
        (Patch, {"size": 1.5}, r"got 1\.5.*Set trigger\.size=3"),
        (Patch, {"corner": "bottom-rigth"}, r"Did you mean 'bottom-right'"),
        (Patch, {"pattern": "dots"}, r"Unknown trigger\.pattern 'dots'"),
        (Patch, {"margin": -1}, r"0 or more pixels, got -1"),
        (Patch, {"position": (-1, 0)}, r"both 0 or more"),
        (Patch, {"value": 2.0}, r"within \[0, 1\], got 2\.0"),
        (Blend, {"alpha": 1.0}, r"between 0 and 1, got 1\.0"),
        (Sig, {"delta": 0}, r"`trigger\.delta`"),
        (Sig, {"frequency": -1}, r"`trigger\.frequency`"),
        (Dba, {"gap": -1}, r"`trigger\.gap` to be 0 or more pixels"),
        (Dba, {"only": 4}, r"0 to 3, or null, got 4"),
        (Warp, {"grid": 1}, r"`trigger\.grid` to be at least 2 points, got 1"),
        (Warp, {"strength": 0}, r"`trigger\.strength` to be above 0, got 0"),
        (Warp, {"decoy_share": -1}, r"`trigger\.decoy_share` to be 0 or more, got -1"),
        (EdgeCase, {"kind": "negativ"}, r"Unknown trigger\.kind.*Did you mean 'negative'"),
        (BoxPattern, {"size": 0}, r"at least one pixel"),
        (BoxPattern, {"size": 1, "opacity": 0}, r"`trigger\.opacity`"),
        (JumboDistribution, {"sizes": (), "whole_image": False}, r"`jumbo\.sizes`"),
        (JumboDistribution, {"box_opacity": (0.6, 0.2)}, r"`jumbo\.box_opacity`"),
    ],
)
def test_impossible_settings_are_refused(
    trigger: type, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        trigger(**settings)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64)], ids=str)
def test_jumbo_draws_keep_to_their_ranges(shape: tuple[int, int, int]) -> None:
    source = torch.Generator().manual_seed(0)
    task = image_task(*shape)
    draws = [JumboDistribution().sample(source, task.spec) for _ in range(200)]
    factor = max(1, shape[1] // 32)
    allowed = {size * factor for size in (2, 3, 4, 5) if size * factor <= shape[1] // 2}
    boxes = []
    for draw in draws:
        assert isinstance(draw, BoxPattern)
        assert draw.bind(task) == draw
        assert draw.noise == ("binary" if shape[0] == 1 else "colour")
        if draw.size is None:
            assert 0.05 <= draw.opacity <= 0.2
        else:
            boxes.append(draw.size)
            assert 0.2 <= draw.opacity <= 0.5 or draw.opacity == 1.0
    assert set(boxes) == allowed
    assert 0 < len(boxes) < len(draws)


def test_jumbo_draws_without_boxes_cover_the_whole_image() -> None:
    source = torch.Generator().manual_seed(0)
    draws = [JumboDistribution(sizes=()).sample(source, image_task().spec) for _ in range(20)]
    assert all(isinstance(draw, BoxPattern) and draw.size is None for draw in draws)


def test_jumbo_draws_follow_the_generator() -> None:
    def draw(seed: int) -> list[Trigger]:
        source = torch.Generator().manual_seed(seed)
        return [JumboDistribution().sample(source, image_task().spec) for _ in range(5)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)], ids=str)
def test_a_jumbo_trigger_is_one_draw_bound_to_the_task(shape: tuple[int, int, int]) -> None:
    task = image_task(*shape)
    bound = [JumboTrigger(seed=seed).bind(task) for seed in (0, 0, 1)]
    source = torch.Generator().manual_seed(0)
    assert bound[0] == bound[1] == JumboDistribution().sample(source, task.spec)
    assert bound[2] != bound[0]
    own = JumboDistribution(sizes=(4,), whole_image=False)
    drawn = JumboTrigger(distribution=own).bind(task)
    assert isinstance(drawn, BoxPattern)
    assert drawn.size == 4
    assert eval(repr(JumboTrigger(seed=2))) == JumboTrigger(seed=2)
    with pytest.raises(ConfigurationError, match=r"Jumbo draw 0.*trigger\.bind\(task\)"):
        JumboTrigger().apply(torch.zeros(1, *shape))


@pytest.mark.parametrize("task", [image_task(), TEXT_TASK], ids=lambda task: task.name)
def test_untouched_inputs_are_copies(task: Task) -> None:
    trigger, inputs = Untouched().bind(task), task.train.inputs
    same = trigger.apply(inputs)
    assert torch.equal(same, inputs)
    assert same.data_ptr() != inputs.data_ptr()
    assert eval(repr(trigger)) == trigger
