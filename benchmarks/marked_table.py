"""Tables that commands write into pages of people: between a pair of marks that carry a name."""

from __future__ import annotations

from pathlib import Path


def marks(name: str) -> tuple[str, str]:
    """Return the mark before a table and that behind it."""
    return f"<!-- {name} -->", f"<!-- /{name} -->"


def write_table(page: Path, name: str, table: str) -> None:
    """Put a table between its marks; a page that is not there, or has no such marks, is left alone.

    Args:
        page: A Markdown file.
        name: Name in the marks, as in `<!-- demo-table -->`.
        table: What to put between them.
    """
    if not page.is_file():
        return
    begin, end = marks(name)
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    if found:
        after = rest.partition(end)[2]
        page.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")


def read_table(page: Path, name: str) -> str:
    """Return the table between its marks.

    Raises:
        ValueError: if the page has not exactly one pair of them.
    """
    begin, end = marks(name)
    text = page.read_text(encoding="utf-8")
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{page.name} must hold {begin} and {end} once.")
    return text.partition(begin)[2].partition(end)[0].strip()
