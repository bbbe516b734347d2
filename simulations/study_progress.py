"""Progress of a study for people: a bar with the time left on a terminal, lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from fl_shield.simulations.progress import sentence


class StudyProgress:
    """Shows finished cells, and how long the others will take at that pace.

    Args:
        console: Where to show it.
        title: What is being run.
        total: Cells in all.
        done: Those finished in earlier sessions.
        clock: Seconds, for tests.
    """

    def __init__(
        self,
        console: Console,
        title: str,
        total: int,
        done: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._title, self._clock = console, title, clock
        self._total, self._before, self._finished = total, done, 0
        self._started = clock()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, completed=done, left="")

    def __enter__(self) -> StudyProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    @property
    def time_left(self) -> str:
        """How long the rest will take if it goes on as it did, in words."""
        left = self._total - self._before - self._finished
        if not left:
            return "done"
        if not self._finished:
            return ""
        pace = (self._clock() - self._started) / self._finished
        return f"about {duration(pace * left)} left"

    def finished(self, name: str, figures: Mapping[str, Any]) -> None:
        """Show a cell that came to its end."""
        seconds = figures.get("seconds")
        taken = "" if seconds is None else f"  in {duration(float(seconds))}"
        self._step(f"{name}: {sentence(figures)}{taken}")

    def failed(self, name: str, error: Exception) -> None:
        """Show a cell that broke off."""
        reason = str(error).strip() or type(error).__name__
        self._step(f"{name}: failed, {reason.splitlines()[0]}")

    def _step(self, line: str) -> None:
        self._finished += 1
        done = self._before + self._finished
        left = self.time_left
        self._bar.update(self._task, completed=done, left=left)
        if not self._console.is_terminal:
            line = f"[{done}/{self._total}] {line}  ({left})"
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)


def duration(seconds: float) -> str:
    """Return a time as a person says it.

    >>> duration(8), duration(95), duration(5000), duration(100_000)
    ('8 s', '2 min', '1 h 23 min', '27 h 47 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
