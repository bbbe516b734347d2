"""Parts of images and texts against hand-computed cases."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from fl_shield.data.task import TaskSpec
from fl_shield.scanning.parts import parts_for
from fl_shield.scanning.parts_of_images import ImageParts, blurred
from fl_shield.scanning.parts_of_texts import TextParts

IMAGE = torch.arange(64.0).reshape(1, 8, 8) / 64


def test_a_window_is_pasted_and_erased_at_its_place() -> None:
    parts, partners = ImageParts(), torch.zeros(2, 1, 8, 8)
    box = (2, 4, 3, 4)
    pasted = parts.paste(IMAGE, box, partners)
    erased = parts.erase(IMAGE, box, partners)
    assert torch.equal(pasted[1, :, 2:5, 4:8], IMAGE[:, 2:5, 4:8])
    assert int((pasted != 0).sum()) == 2 * 12
    assert int((erased[0] == 0).sum()) == 12 + 1  # the first pixel is 0 anyway
    assert torch.equal(pasted[0] + erased[0], IMAGE)
    assert partners.sum() == 0


def test_nine_windows_and_nine_in_each() -> None:
    parts = ImageParts()
    coarse = parts.coarse(IMAGE)
    assert len(coarse) == 9
    assert coarse[0] == (0, 0, 4, 4)
    assert coarse[-1] == (4, 4, 4, 4)
    assert parts.fine(IMAGE, (4, 4, 4, 4))[0] == (4, 4, 2, 2)
    assert parts.fine(IMAGE, (0, 0, 1, 1)) == [(0, 0, 1, 1)]


@given(st.integers(2, 40), st.integers(0, 100), st.integers(0, 100))
def test_a_patch_of_a_quarter_lies_wholly_in_a_window(side: int, top: int, left: int) -> None:
    """So no trigger of that size is cut by the grid."""
    size = max(1, side // 4)
    top, left = top % (side - size + 1), left % (side - size + 1)
    windows = ImageParts().coarse(torch.zeros(1, side, side))
    assert any(
        row <= top and top + size <= row + tall and column <= left and left + size <= column + wide
        for row, column, tall, wide in windows
    )


def test_mix_is_the_mean() -> None:
    mixed = ImageParts().mix(IMAGE, torch.ones(3, 1, 8, 8), torch.Generator())
    assert torch.equal(mixed, (IMAGE + torch.ones(3, 1, 8, 8)) / 2)


def test_bands_add_up() -> None:
    partners = torch.full((2, 1, 8, 8), 0.5)  # no detail of their own
    bands = ImageParts().bands(IMAGE, partners)
    assert set(bands) == {"detail", "doubled", "smooth", "blurred"}
    detail = IMAGE - blurred(IMAGE[None])[0]
    torch.testing.assert_close(bands["detail"][0], 0.5 + detail)
    torch.testing.assert_close(bands["doubled"][1], 0.5 + 2 * detail)
    torch.testing.assert_close(bands["smooth"][0], bands["blurred"][0])


def test_blur_keeps_a_plain_image_and_the_middle_of_a_slope() -> None:
    plain = torch.full((1, 2, 5, 5), 0.3)
    torch.testing.assert_close(blurred(plain), plain)
    torch.testing.assert_close(blurred(IMAGE[None])[0, 0, 3:5, 3:5], IMAGE[0, 3:5, 3:5])


# Token 1 opens, 2 closes, 0 pads.
TEXT = torch.tensor([1, 5, 6, 7, 8, 2, 0, 0])
OTHER = torch.tensor([[1, 11, 12, 2, 0, 0, 0, 0], [1, 11, 12, 13, 14, 15, 16, 2]])


def test_a_span_is_put_in_at_its_place_and_marks_stay() -> None:
    parts = TextParts(0, (1, 2))
    pasted = parts.paste(TEXT, (1, 0, 2, 1), OTHER)
    assert pasted.tolist() == [[1, 11, 6, 7, 12, 2, 0, 0], [1, 11, 6, 7, 12, 13, 14, 2]]


def test_a_span_is_taken_out() -> None:
    erased = TextParts(0, (1, 2)).erase(TEXT, (1, 0, 2, 1), OTHER)
    assert erased.tolist() == [[1, 5, 8, 2, 0, 0, 0, 0]] * 2


def test_texts_without_marks() -> None:
    parts = parts_for(TaskSpec("text", (4,), 2, vocab_size=9))
    text, other = torch.tensor([3, 4, 0, 0]), torch.tensor([[5, 6, 7, 8]])
    assert parts.paste(text, (0, 0, 1, 1), other).tolist() == [[3, 5, 6, 7]]
    assert parts.erase(text, (0, 0, 2, 1), other).tolist() == [[0, 0, 0, 0]]
    assert parts.bands(text, other) == {}


def test_special_tokens_are_those_that_are_no_words() -> None:
    parts = parts_for(TaskSpec("text", (8,), 2, vocab_size=20), tuple(range(3, 20)))
    assert isinstance(parts, TextParts)
    assert parts.erase(TEXT, (0, 0, 4, 1), OTHER)[0].tolist() == [1, 2, 0, 0, 0, 0, 0, 0]


@given(st.integers(1, 40))
def test_spans_cover_every_word(words: int) -> None:
    parts = TextParts(0)
    text = torch.ones(words, dtype=torch.int64)
    for box in parts.coarse(text):
        fine = parts.fine(text, box)
        covered = {first + k for first, _, count, _ in fine for k in range(count)}
        assert covered == set(range(box[0], box[0] + box[2]))
    coarse = {first + k for first, _, count, _ in parts.coarse(text) for k in range(count)}
    assert coarse == set(range(words))


def test_a_text_of_no_words_has_a_part_all_the_same() -> None:
    parts, nothing = TextParts(0, (1, 2)), torch.tensor([1, 2, 0, 0])
    (box,) = parts.coarse(nothing)
    assert parts.erase(nothing, box, OTHER[:, :4])[0].tolist() == [1, 2, 0, 0]
