"""What an experiment tracker offers a run; a failing tracker never stops training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Receives the figures of a run as they arise.

    The run is a simulation, its arms and their rounds; or a meta-training, its networks and their
    steps, and an arm more for the detector that they make up.
    """

    @property
    def folder(self) -> Path | None:
        """Where the tracker keeps its files of this run, None if nowhere."""

    def start(self, run_folder: Path, name: str, config: Mapping[str, Any]) -> None:
        """Begin to track a run.

        Raises:
            ConfigurationError: if the tracker cannot work at all on this machine.
        """

    def start_arm(self, arm: str) -> None:
        """Begin to track an arm of the run."""

    def log_round(self, round_number: int, metrics: Mapping[str, float | None]) -> None:
        """Track the figures of a round of the present arm; None is left out."""

    def log_scores(self, round_number: int, scores: Mapping[str, Sequence[float]]) -> None:
        """Track the distribution of suspicion scores, by kind of client."""

    def finish_arm(self, summary: Mapping[str, Any]) -> None:
        """End the present arm with its final figures, JSON-ready; None is left out."""
