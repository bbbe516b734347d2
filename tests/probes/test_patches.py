"""Patches: every place, both colours, in the range of the images."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from fl_shield.probes.patches import PLACES, patched_images


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 33), st.integers(1, 33))
def test_patches_tile_the_image_and_stay_in_its_range(
    samples: int, channels: int, height: int, width: int
) -> None:
    images = torch.randn(
        samples, channels, height, width, generator=torch.Generator().manual_seed(0)
    )
    found = patched_images(images)
    places = min(PLACES, height) * min(PLACES, width)
    assert found.shape == (2 * places * samples, channels, height, width)
    assert found.min() == images.min()
    assert found.max() == images.max()
    by_patch = found.reshape(places, 2, samples, channels, height, width)
    inside = (by_patch[:, 0] != by_patch[:, 1]).all(dim=(1, 2)) | (images.min() == images.max())
    covered = inside.sum(dim=0)
    assert bool((covered == (places if images.min() == images.max() else 1)).all())
    outside = ~inside[:, None, None, None].expand_as(by_patch)
    assert torch.equal(by_patch[outside], images.expand_as(by_patch)[outside])


def test_a_corner_patch_is_where_it_should_be() -> None:
    images = torch.zeros(1, 1, 8, 8)
    images[0, 0, 0, 0] = 1.0
    last_bright = patched_images(images)[-1, 0]
    assert torch.equal(last_bright[6:, 6:], torch.ones(2, 2))
    assert float(last_bright.sum()) == 5.0
