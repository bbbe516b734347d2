"""No tracking: the run folder alone keeps the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class NoTracker:
    """Takes everything and keeps nothing."""

    folder: Path | None = None

    def start(self, run_folder: Path, name: str, config: Mapping[str, Any]) -> None:
        """Do nothing."""

    def start_arm(self, arm: str) -> None:
        """Do nothing."""

    def log_round(self, round_number: int, metrics: Mapping[str, float | None]) -> None:
        """Do nothing."""

    def log_scores(self, round_number: int, scores: Mapping[str, Sequence[float]]) -> None:
        """Do nothing."""

    def finish_arm(self, summary: Mapping[str, Any]) -> None:
        """Do nothing."""
