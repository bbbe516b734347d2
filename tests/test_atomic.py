"""A file is the old one or the new one, and nothing is left lying about."""

from pathlib import Path

import pytest

from fl_shield.atomic import draft_of


@pytest.mark.parametrize("durable", [False, True])
def test_the_draft_takes_the_place_of_the_file(tmp_path: Path, durable: bool) -> None:
    file = tmp_path / "new" / "facts.json"
    for text in ("first", "second"):
        with draft_of(file, durable=durable) as draft:
            draft.write_text(text)
            assert not file.exists() or file.read_text() == "first"
        assert file.read_text() == text
    assert [path.name for path in file.parent.iterdir()] == ["facts.json"]


def test_a_block_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    file.write_text("old")

    def fail_half_way() -> None:
        with draft_of(file) as draft:
            draft.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
