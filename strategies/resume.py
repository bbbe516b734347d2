"""Sessions: a run that outlives its server process.

After every round, global model, server optimiser, evidence, and the length of the audit log are
written to the state folder. A restarted server finds them and goes on with the next round; the
round that was open when the old one died is run again, and what the audit log already said of it
is set aside.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import Result, Strategy

from fl_shield.audit import AuditLog
from fl_shield.errors import ConfigurationError, StateError, expected
from fl_shield.strategies.checkpoint import (
    Checkpoint,
    read_checkpoint,
    restore,
    write_checkpoint,
)

try:
    import fcntl
except ImportError:  # not POSIX: two servers on one folder are then not noticed
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("flwr.fl_shield")

Start = Callable[..., Any]
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


class Sessions:
    """The sessions of one run, over restarts.

    Args:
        folder: State folder; None keeps nothing.

    Raises:
        ConfigurationError: if the folder cannot be made.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._done = 0
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigurationError(
                    expected("state", "a folder that can be written", str(folder), f"{error}.")
                ) from error

    def round_number(self, server_round: int) -> int:
        """Return the round of the run for a round of this session, both from 1."""
        return self._done + server_round

    def finish_round(
        self, strategy: Strategy, round_number: int, arrays: ArrayRecord, audit: AuditLog | None
    ) -> None:
        """Write the state after a round; a full disk is said in the log, and costs nothing else."""
        if self.folder is None:
            return
        try:
            length = None if audit is None else audit.length()
            write_checkpoint(self.folder, round_number, arrays, strategy, length)
        except OSError:
            log.exception(
                "\t> The state of round %d could not be written; a restart would go on from an "
                "earlier one.",
                round_number,
            )

    def run(
        self,
        strategy: Strategy,
        start: Start,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        audit: AuditLog | None,
    ) -> Any:
        """Call `start`, from where an earlier session stopped.

        Args:
            strategy: The shielded strategy.
            start: Its `start`, with Flower's arguments `initial_arrays` and `num_rounds`.
            args: Arguments of `start`.
            kwargs: Keyword arguments of `start`.
            audit: The audit log, None for none.

        Raises:
            ConfigurationError: if `start` does not take those arguments.
            StateError: if the folder is in use, cannot be read, or belongs to another run.
        """
        self._done = 0
        if self.folder is None:
            return start(*args, **kwargs)
        with _locked(self.folder):
            checkpoint = _read(self.folder)
            call = _bind(start, args, kwargs)
            if checkpoint is None:  # the beginning is a state, too: round 1 may be the open one
                self.finish_round(strategy, 0, call.arguments["initial_arrays"], audit)
                return start(*args, **kwargs)
            _check_same_model(self.folder, checkpoint.arrays, call.arguments["initial_arrays"])
            restore(strategy, checkpoint)
            if audit is not None and checkpoint.audit_bytes is not None:
                audit.set_aside_after(checkpoint.audit_bytes)
            return self._go_on(start, call, checkpoint)

    def _go_on(self, start: Start, call: inspect.BoundArguments, checkpoint: Checkpoint) -> Any:
        self._done = checkpoint.round_number
        remaining = call.arguments["num_rounds"] - self._done
        if remaining <= 0:
            log.warning(
                "All %d rounds were finished in earlier sessions; the result is their model. "
                "Raise num_rounds to go on, or name another state folder than %s to begin anew.",
                self._done,
                self.folder,
            )
            return Result(arrays=checkpoint.arrays)
        log.info("Going on after round %d, which %s remembers.", self._done, self.folder)
        call.arguments["initial_arrays"] = checkpoint.arrays
        call.arguments["num_rounds"] = remaining
        evaluate: EvaluateFn | None = call.arguments.get("evaluate_fn")
        if evaluate is not None:
            call.arguments["evaluate_fn"] = lambda number, arrays: evaluate(
                self.round_number(number), arrays
            )
        result = start(*call.args, **call.kwargs)
        if isinstance(result, Result):
            for history in (
                "train_metrics_clientapp",
                "evaluate_metrics_clientapp",
                "evaluate_metrics_serverapp",
            ):
                setattr(result, history, self._renumbered(getattr(result, history)))
        return result

    def _renumbered(self, history: Mapping[int, MetricRecord]) -> dict[int, MetricRecord]:
        return {self.round_number(number): record for number, record in history.items()}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the lock goes with the process, however it ends."""
    with (folder / "lock").open("w") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StateError(
                f"The state folder {folder} is in use by another server. Stop that one, or name "
                "another folder."
            ) from error
        yield


def _read(folder: Path) -> Checkpoint | None:
    checkpoint = read_checkpoint(folder)
    if checkpoint is None and any(folder.glob("*.json")):
        raise StateError(
            f"No state in {folder} can be read (the log names each file). Restore the folder from "
            "a copy, or name an empty one to begin the training anew."
        )
    return checkpoint


def _bind(start: Start, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
    call = inspect.signature(start).bind(*args, **kwargs)
    call.apply_defaults()
    missing = {"initial_arrays", "num_rounds"} - set(call.arguments)
    if missing:
        raise ConfigurationError(
            f"This strategy's start() has no {' and no '.join(sorted(missing))}, so a run cannot "
            "go on from its state. Give start() Flower's arguments, or leave `state` away."
        )
    return call


def _check_same_model(folder: Path, saved: ArrayRecord, initial: ArrayRecord) -> None:
    shapes = {name: tuple(array.shape) for name, array in saved.items()}
    wanted = {name: tuple(array.shape) for name, array in initial.items()}
    if shapes != wanted:
        odd = sorted(set(shapes.items()) ^ set(wanted.items()))[0][0]
        raise StateError(
            f"The state in {folder} is that of another model ({odd!r} differs). Start with the "
            "same architecture, or name an empty folder."
        )
