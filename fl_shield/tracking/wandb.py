"""Tracking in Weights & Biases: one W&B run an arm, grouped by run, so that curves overlay."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fl_shield.errors import ConfigurationError, unknown

MODES = ("offline", "online", "shared", "disabled")

_log = logging.getLogger("flwr.fl_shield")


class WandbTracker:
    """Sends figures to Weights & Biases, offline unless told otherwise.

    Args:
        mode: `"offline"` writes files only (upload them later with `wandb sync`), `"online"` uses
            the login of the user.
        project: W&B project.
        entity: W&B user or team, None for the login's own.
        tags: Tags of every run.
        group: W&B group of all arms, for example the name of a study; None for the run's name.

    Raises:
        ConfigurationError: if the mode is unknown.
    """

    def __init__(
        self,
        mode: str = "offline",
        project: str = "fl_shield",
        entity: str | None = None,
        tags: Sequence[str] = (),
        group: str | None = None,
    ) -> None:
        if mode not in MODES:
            raise ConfigurationError(unknown("tracking.mode", mode, MODES))
        self.mode, self.project, self.entity, self.tags = mode, project, entity, tuple(tags)
        self.group = group
        self.folder: Path | None = None
        self._name, self._config = "", {}  # type: str, Mapping[str, Any]
        self._run: Any = None

    def start(self, run_folder: Path, name: str, config: Mapping[str, Any]) -> None:
        """Remember where and what to track.

        Raises:
            ConfigurationError: if the wandb package is not installed.
        """
        try:
            import wandb  # noqa: F401 - only to know that it is there
        except ImportError as error:
            raise ConfigurationError(
                "Tracking in Weights & Biases needs the wandb package: pip install "
                "'fl-shield[wandb]', or run with tracking=none."
            ) from error
        self.folder, self._name, self._config = run_folder / "wandb", name, config
        self.folder.mkdir(parents=True, exist_ok=True)

    def start_arm(self, arm: str) -> None:
        """Open the W&B run of an arm."""
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        try:
            self._run = wandb.init(
                mode=self.mode,  # type: ignore[arg-type]
                project=self.project,
                entity=self.entity,
                group=self.group or self._name,
                name=f"{self._name}/{arm}",
                job_type=arm,
                tags=list(self.tags),
                config=dict(self._config),
                dir=str((self.folder or Path()).parent),
                settings=wandb.Settings(silent=True, console="off"),
                reinit="finish_previous",
            )
        except Exception as error:  # a tracker's trouble is not the run's
            _log.warning("W&B does not track this arm: %s", error)
            self._run = None

    def log_round(self, round_number: int, metrics: Mapping[str, float | None]) -> None:
        """Log the figures of a round."""
        known = {key: value for key, value in metrics.items() if value is not None}
        self._send(lambda run: run.log(known, step=round_number))

    def log_scores(self, round_number: int, scores: Mapping[str, Sequence[float]]) -> None:
        """Log histograms of scores."""
        import wandb

        histograms = {
            f"scores/{kind}": wandb.Histogram(list(values))
            for kind, values in scores.items()
            if values
        }
        self._send(lambda run: run.log(histograms, step=round_number))

    def finish_arm(self, summary: Mapping[str, Any]) -> None:
        """Close the W&B run of the arm."""

        def close(run: Any) -> None:
            for key, value in summary.items():
                if value is not None:
                    run.summary[f"final/{key}"] = value
            run.finish()

        self._send(close)
        self._run = None

    def _send(self, action: Any) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:  # a tracker's trouble is not the run's
            _log.warning("W&B stopped tracking this arm: %s", error)
            self._run = None
