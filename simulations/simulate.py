"""A whole simulated run on this machine: Flower's engine, progress, results, and going on later."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from yaml import YAMLError

from fl_shield.errors import ConfigurationError, FlShieldError, StateError
from fl_shield.simulations.final_models import audit_command
from fl_shield.simulations.in_parallel import QUIET_RAY
from fl_shield.simulations.progress import display_for
from fl_shield.simulations.settings import Settings, settings_from
from fl_shield.simulations.summary import summary_table, write_summary

INTERRUPTED = 130
"""Exit status of a run that was stopped by Ctrl-C."""

_log = logging.getLogger("flwr.fl_shield")


class RunError(FlShieldError):
    """A run broke off; its finished rounds are kept, and it can be resumed."""


def resume_settings(folder: Path) -> Settings:
    """Return the settings of a run folder.

    Raises:
        ConfigurationError: if it is no run folder.
        StateError: if its settings cannot be read.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise ConfigurationError(
            f"Expected a run folder to resume, but {str(folder)!r} holds no config.yaml. "
            "Name the folder that the interrupted run printed."
        )
    try:
        config = OmegaConf.create(file.read_text(encoding="utf-8"))
        if not isinstance(config, DictConfig):
            raise ValueError("no mapping")
        return settings_from(config)
    except (OSError, ValueError, YAMLError) as error:
        if isinstance(error, FlShieldError):
            raise
        raise StateError(f"The settings in {file} are damaged: {error}") from error


def simulate(
    settings: Settings,
    folder: Path,
    console: Console,
    *,
    is_resume: bool = False,
    overrides: Sequence[str] = (),
) -> int:
    """Run all arms, in Flower's simulation engine or in this process, and write the run folder.

    Args:
        settings: The checked settings.
        folder: The run folder.
        console: Where to report to.
        is_resume: Go on with what the folder holds; otherwise it must not hold a run.
        overrides: The overrides that the settings come from, for the report.

    Returns:
        The exit status: 0, or 130 if the run was interrupted.

    Raises:
        FlShieldError: if something does not fit, before anything trains.
        RunError: if the run broke off for a reason that is not the user's settings.
    """
    if not is_resume and any(folder.glob("arms/*/rounds.jsonl")):
        raise ConfigurationError(
            f"The folder {folder} holds a run already. Go on with it: fl-shield simulate --resume "
            f"{shlex.quote(str(folder))}, or choose another run_name."
        )
    # Before Flower is imported: both read their environment then.
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    os.environ.update({key: os.environ.get(key, value) for key, value in QUIET_RAY.items()})
    from fl_shield.simulations.client_app import make_client_app
    from fl_shield.simulations.nodes import RunStopped
    from fl_shield.simulations.server_app import make_server_app, prepare, run_arms

    federation, tracker = prepare(settings, folder)
    if not is_resume:
        command = shlex.join(["fl-shield", "simulate", *overrides])
        (folder / "command.txt").write_text(f"{command}\n", encoding="utf-8")
    _announce(console, settings, folder)
    display = display_for(console)
    stop = threading.Event()
    failures: list[BaseException] = []

    def run(grid: Any) -> None:
        try:
            run_arms(grid, federation, folder, tracker, display, stop)
        except BaseException as error:
            failures.append(error)
            raise

    with flower_log(folder / "flower.log"), _stopping(stop, console):
        try:
            if _is_in_process(settings):
                import torch

                from fl_shield.simulations.study_grid import OneProcessGrid

                torch.set_num_threads(1)  # as the engine's server and clients have it
                run(OneProcessGrid(make_client_app(settings), settings.num_clients))
            else:
                from flwr.simulation import run_simulation

                run_simulation(
                    server_app=make_server_app(run),
                    client_app=make_client_app(settings),
                    num_supernodes=settings.num_clients,
                    backend_config=backend_config(settings),
                )
        except Exception as error:
            failures.append(error)
            _log.exception("The simulation ended early.")
        finally:
            stop.set()  # else the server's thread would wait for replies that cannot come
            display.stop()
    summary = write_summary(folder, settings)
    if failures and not isinstance(failures[0], RunStopped):
        _say_how_to_resume(console, folder, "The run broke off; its finished rounds are kept.")
        raise _reason(failures, folder)
    if not summary["finished"]:
        _say_how_to_resume(console, folder, "Interrupted; nothing is lost.")
        return INTERRUPTED
    if settings.scan_final_model:
        from fl_shield.simulations.final_scan import scan_finished

        try:
            with flower_log(folder / "flower.log"):
                scan_finished(folder, settings, console)
        except KeyboardInterrupt:  # the run is complete, and its report is not to be lost
            console.print(
                f"The scan was interrupted. Again: {audit_command(folder)}", highlight=False
            )
    _report(console, folder, summary, tracker.folder)
    return 0


def _reason(failures: Sequence[BaseException], folder: Path) -> FlShieldError:
    """Return the failure that a person can act on, or one that says where to look."""
    for failure in failures:
        if isinstance(failure, FlShieldError):
            return failure
    first = failures[0].__cause__ or failures[0]
    return RunError(
        f"{type(first).__name__}: {str(first).strip() or 'no message'} "
        f"(the traceback is in {folder / 'flower.log'})"
    )


def _say_how_to_resume(console: Console, folder: Path, what: str) -> None:
    console.print(
        f"\n{what} Go on with:\n  fl-shield simulate --resume {shlex.quote(str(folder))}",
        highlight=False,
        soft_wrap=True,
    )


@contextmanager
def _stopping(stop: threading.Event, console: Console) -> Iterator[None]:
    """Let Ctrl-C end the run between two steps of the server; a second one interrupts at once.

    An exception in the middle of Flower's engine would leave its threads waiting for each other.
    """

    def ask(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop.set()
        console.print("Stopping …", highlight=False)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _announce(console: Console, settings: Settings, folder: Path) -> None:
    config = settings.config
    console.print(
        f"{settings.num_clients} clients, {settings.num_attackers} of them malicious, "
        f"{settings.rounds} rounds, arms: {', '.join(arm.name for arm in settings.arms)}.\n"
        f"Run folder: {folder}"
        + ("" if _is_in_process(settings) else "\nStarting Flower's simulation engine …"),
        highlight=False,
        soft_wrap=True,
    )
    if settings.num_clients * float(config["fraction_train"]) < 3:
        console.print(
            "Fewer than three clients a round leave nothing to compare: the shield checks replies "
            "for form, but suspects nobody.",
            highlight=False,
        )


def _is_in_process(settings: Settings) -> bool:
    return settings.config.get("engine") == "in_process"


def backend_config(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return what Flower's simulation engine is told of this machine."""
    simulation = settings.config["simulation"]
    cores = simulation["num_cpus"] or len(os.sched_getaffinity(0))
    return {
        "client_resources": {"num_cpus": simulation["client_cpus"], "num_gpus": 0.0},
        "init_args": {
            # A cluster of its own: one that happens to run, or has left its address behind, would
            # be joined otherwise, and refuses to be told its CPUs.
            "address": "local",
            "num_cpus": max(cores, simulation["client_cpus"]),
            "include_dashboard": False,
            "log_to_driver": False,
            "logging_level": logging.ERROR,
        },
    }


@contextmanager
def flower_log(file: Path) -> Iterator[None]:
    """Send Flower's log to a file for a while, so that the terminal shows the run."""
    logger = logging.getLogger("flwr")
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    before, propagates = list(logger.handlers), logger.propagate
    logger.handlers, logger.propagate = [handler], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before, propagates
        handler.close()


def _report(console: Console, folder: Path, summary: dict[str, Any], tracking: Path | None) -> None:
    from fl_shield.simulations.plots import draw_all
    from fl_shield.simulations.report import build_report

    draw_all(folder)
    report = build_report(folder)
    console.print()
    console.print(summary_table(summary))
    audits = sorted(folder.glob("arms/*/audit.jsonl"))
    places = [
        ("Report", report),
        ("Plots", folder / "plots"),
        *(("Audit log", audit) for audit in audits),
        *([("W&B run", tracking)] if tracking is not None else []),
        ("Summary", folder / "summary.json"),
    ]
    for name, place in places:
        console.print(f"{name + ':':<11}{place}", highlight=False, soft_wrap=True)
