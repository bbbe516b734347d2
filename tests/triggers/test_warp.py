"""The warp against the authors' program, typed from the paper's equations, and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fl_shield.attacks.attack import Attack
from fl_shield.triggers.patch import Patch
from fl_shield.triggers.protocol import DecoyTrigger
from fl_shield.triggers.warp import Warp


def ramp(height: int, width: int) -> Tensor:
    """Return an image that is linear in its column: a warp shows as the distance it moved."""
    return torch.linspace(0.25, 0.75, width).expand(1, 1, height, width)


def test_the_field_is_that_of_the_paper() -> None:
    """P = upsample(rand[-1, 1] / mean |.|), grid = clip(identity + s P / height).

    Bilinear sampling of a linear image is exact: what is found at a pixel is where it looked.
    """
    warp, side = Warp(grid=4, strength=1.5, seed=7), 16
    source = torch.Generator().manual_seed(7)
    lattice = torch.rand(1, 2, 4, 4, generator=source) * 2 - 1
    lattice = lattice / lattice.abs().mean()
    field = torch.nn.functional.interpolate(lattice, size=side, mode="bicubic", align_corners=True)[
        0
    ]
    columns = torch.linspace(-1, 1, side)
    looked = (columns[None, :] + 1.5 * field[0] / side).clamp(-1, 1)
    wanted = 0.5 + looked / 4  # the ramp runs from 0.25 at -1 to 0.75 at 1
    torch.testing.assert_close(warp.apply(ramp(side, side))[0, 0], wanted)
    rows = torch.linspace(-1, 1, side)[:, None]
    looked = (rows + 1.5 * field[1] / side).clamp(-1, 1)
    upright = ramp(side, side).transpose(-2, -1)
    torch.testing.assert_close(warp.apply(upright)[0, 0], 0.5 + looked / 4)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (32, 32), (9, 20)])
@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_the_mean_displacement_is_about_strength_half_pixels(
    height: int, width: int, strength: float
) -> None:
    moved = []
    for seed in range(20):
        triggered = Warp(strength=strength, seed=seed).apply(ramp(height, width))
        inside = (triggered - ramp(height, width))[..., width // 4 : -width // 4]
        moved.append((inside * 4).abs().mean() * height)  # in units of 1/height
    assert 0.5 * strength < torch.stack(moved).mean() < 1.5 * strength


def test_constant_images_do_not_change_and_stronger_warps_move_more() -> None:
    flat = torch.full((2, 3, 8, 8), 0.4)
    torch.testing.assert_close(Warp(strength=3).apply(flat), flat)
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    changes = [(Warp(strength=s).apply(image) - image).abs().mean() for s in (0.1, 0.5, 2.0)]
    assert changes == sorted(changes)


def test_decoys_are_near_misses_each_its_own() -> None:
    warp, images = Warp(strength=2), ramp(16, 16).repeat(30, 1, 1, 1)
    assert isinstance(warp, DecoyTrigger)
    assert not isinstance(Patch(), DecoyTrigger)
    before = images.clone()
    decoys = warp.decoy(images, torch.Generator().manual_seed(1))
    assert torch.equal(images, before)
    assert decoys.shape == images.shape
    assert torch.equal(decoys, warp.decoy(images, torch.Generator().manual_seed(1)))
    assert not torch.equal(decoys[0], decoys[1])
    away = (decoys - warp.apply(images))[..., 3:-3]  # away from the edges nothing is clipped
    assert float(away.abs().max()) <= 1 / 16 / 4 + 1e-6  # one unit of 1/height, slope 1/4
    assert float(away.mean().abs()) < 1e-3
    assert warp.decoy(images[:0]).shape == (0, 1, 16, 16)


@pytest.mark.parametrize(
    ("poison_share", "decoy_share", "poisoned", "decoys"),
    [(0.2, 2.0, 4, 8), (0.2, 0.0, 4, 0), (0.5, 2.0, 10, 10), (1.0, 2.0, 16, 4)],
)
def test_an_attacker_keeps_the_labels_of_its_decoys(
    poison_share: float, decoy_share: float, poisoned: int, decoys: int
) -> None:
    warp = Warp(strength=2, decoy_share=decoy_share)
    attack = Attack(trigger=warp, target_class=0, poison_share=poison_share)
    labels = torch.arange(20) % 5
    images = torch.rand(20, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    inputs, given = attack.poison(images, labels, torch.Generator().manual_seed(3))
    changed = (inputs != images).flatten(1).any(dim=1)
    exactly = (inputs == warp.apply(images)).flatten(1).all(dim=1)
    assert int(exactly.sum()) == poisoned
    assert int((changed & ~exactly).sum()) == decoys
    assert torch.equal(given[~exactly], labels[~exactly])
    assert not bool(given[exactly].any())
    assert torch.equal(images, before)
