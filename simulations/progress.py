"""Progress for people: live bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINES = 6
"""Plain lines an arm prints besides its first and last."""

Figures = Mapping[str, float | None]


class Display(Protocol):
    """Shows where a run stands."""

    def start_arm(self, title: str, rounds: int, done: int) -> None:
        """Begin to show an arm, `done` of whose rounds were finished earlier."""

    def show_round(self, round_number: int, figures: Figures) -> None:
        """Show a finished round."""

    def stop(self) -> None:
        """Leave the display as it is."""


def display_for(console: Console) -> Display:
    """Return live bars on a terminal, plain lines elsewhere."""
    return LiveBars(console) if console.is_terminal else PlainLines(console)


class LiveBars:
    """One progress bar an arm, with its latest figures."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
        )
        self._task: TaskID | None = None

    def start_arm(self, title: str, rounds: int, done: int) -> None:
        """Add a bar."""
        self._progress.start()
        self._task = self._progress.add_task(title, total=rounds, completed=done, figures="")

    def show_round(self, round_number: int, figures: Figures) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.update(self._task, completed=round_number, figures=sentence(figures))

    def stop(self) -> None:
        """Stop drawing."""
        self._progress.stop()


class PlainLines:
    """A line for the first round of an arm, the last, and some between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._title, self._rounds = "", 0

    def start_arm(self, title: str, rounds: int, done: int) -> None:
        """Remember the arm."""
        self._title, self._rounds = title, rounds
        if done:
            self._console.print(f"{title}: going on after round {done}", highlight=False)

    def show_round(self, round_number: int, figures: Figures) -> None:
        """Print some of the rounds."""
        step = max(1, self._rounds // LINES)
        if round_number % step == 0 or round_number in (1, self._rounds):
            self._console.print(
                f"{self._title}: round {round_number}/{self._rounds}  {sentence(figures)}",
                highlight=False,
            )

    def stop(self) -> None:
        """Nothing is left open."""


def sentence(figures: Figures) -> str:
    """Return the figures of a round as a person reads them.

    >>> sentence({"main_accuracy": 0.913, "asr": 0.004, "dropped": 4, "loss": None})
    'accuracy 91.3 %  attack success 0.4 %  dropped 4'
    """
    names = {"main_accuracy": "accuracy", "asr": "attack success"}
    parts = [
        f"{name} {100 * value:.1f} %"
        for key, name in names.items()
        if (value := figures.get(key)) is not None
    ]
    dropped = figures.get("dropped")
    return "  ".join([*parts, f"dropped {dropped:.0f}"] if dropped is not None else parts)
