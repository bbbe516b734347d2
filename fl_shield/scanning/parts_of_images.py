"""Windows of an image, and its coarse and fine detail."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

Box = tuple[int, int, int, int]
"""A window of an image: top, left, height, width. Of a text: first word, 0, number of words, 1."""

BLUR = 3
"""Side of the box filter that tells detail from the rest, applied twice."""


class ImageParts:
    """Windows: nine of half the height and width, and nine in each of them."""

    def coarse(self, own: Tensor) -> list[Box]:
        """Return nine overlapping windows, `own` being `(channels, height, width)`."""
        return _nine((0, 0, int(own.shape[1]), int(own.shape[2])))

    def fine(self, own: Tensor, box: Box) -> list[Box]:
        """Return nine overlapping windows of a window."""
        del own
        return _nine(box)

    def paste(self, own: Tensor, box: Box, partners: Tensor) -> Tensor:
        """Return the partners `(partners, channels, height, width)` with a window of the image."""
        top, left, height, width = box
        pasted = partners.clone()
        pasted[:, :, top : top + height, left : left + width] = own[
            :, top : top + height, left : left + width
        ]
        return pasted

    def erase(self, own: Tensor, box: Box, partners: Tensor) -> Tensor:
        """Return the image with the partners' pixels in the window."""
        top, left, height, width = box
        erased = own.expand_as(partners).clone()
        window = partners[:, :, top : top + height, left : left + width]
        erased[:, :, top : top + height, left : left + width] = window
        return erased

    def mix(self, own: Tensor, partners: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean of the image and each partner (STRIP)."""
        del generator
        return (own + partners) / 2.0

    def bands(self, own: Tensor, partners: Tensor) -> dict[str, Tensor]:
        """Return partners with the image's detail, single and doubled, and the reverse.

        Faint patterns over a whole image, as Blended has them, are detail: they survive in a
        partner that gets the image's detail, and not in the image without it.
        """
        smooth, partners_smooth = blurred(own[None]), blurred(partners)
        detail = own[None] - smooth
        return {
            "detail": (partners_smooth + detail).clamp(0.0, 1.0),
            "doubled": (partners + 2.0 * detail).clamp(0.0, 1.0),
            "smooth": (smooth + partners - partners_smooth).clamp(0.0, 1.0),
            "blurred": smooth,
        }


def blurred(images: Tensor) -> Tensor:
    """Return images without fine detail: a box filter of `BLUR` pixels, twice."""
    for _ in range(2):
        padded = functional.pad(images, [BLUR // 2] * 4, mode="replicate")
        images = functional.avg_pool2d(padded, BLUR, stride=1)
    return images


def _nine(box: Box) -> list[Box]:
    """Return windows of half a box's sides, at every quarter; fewer where it is too small."""
    top, left, height, width = box
    tall, wide = max(1, (height + 1) // 2), max(1, (width + 1) // 2)
    rows = sorted({0, (height - tall) // 2, height - tall})
    columns = sorted({0, (width - wide) // 2, width - wide})
    return [(top + row, left + column, tall, wide) for row in rows for column in columns]
