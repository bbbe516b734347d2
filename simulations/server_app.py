"""The Flower ServerApp: runs the arms of a comparison one after the other on one grid."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from omegaconf import OmegaConf
from rich.console import Console

from fl_shield.errors import ConfigurationError, raise_all
from fl_shield.simulations.client_app import settings_of
from fl_shield.simulations.federation import Federation, build, build_federation
from fl_shield.simulations.nodes import OrderedGrid, ask_nodes
from fl_shield.simulations.progress import Display, display_for
from fl_shield.simulations.requirements import unmet
from fl_shield.simulations.rounds import Stage, build_strategy, run_arm
from fl_shield.simulations.settings import Settings
from fl_shield.simulations.summary import summary_table, write_summary
from fl_shield.tracking import Tracker


def default_folder(settings: Settings) -> Path:
    """Return the run folder of these settings: the run's name, or date, data set and seed."""
    config = settings.config
    data = str(config["data"]["_target_"]).split(".")[-2]
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    name = config["run_name"] or f"{stamp}-{data}-seed{settings.seed}"
    return Path(config["output_root"]).expanduser().absolute() / str(name)


def prepare(settings: Settings, folder: Path) -> tuple[Federation, Tracker]:
    """Build everything once and check that it fits, before anything trains.

    Raises:
        FlShieldError: naming the first thing that does not fit.
    """
    raise_all(unmet(settings))
    federation = build_federation(settings)
    federation.new_model()
    for arm in settings.arms:
        build_strategy(federation, arm)
    tracker: Tracker = build(settings.config["tracking"], "tracking")
    try:
        (folder / "arms").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"The run folder {str(folder)!r} cannot be made ({error.strerror}). "
            "Name a folder you may write to: output_root=DIR."
        ) from error
    tracker.start(folder, folder.name, settings.config)
    (folder / "config.yaml").write_text(
        OmegaConf.to_yaml(OmegaConf.create(dict(settings.config))), encoding="utf-8"
    )
    return federation, tracker


def run_arms(
    grid: Grid,
    federation: Federation,
    folder: Path,
    tracker: Tracker,
    display: Display,
    stop: threading.Event | None = None,
) -> None:
    """Run every arm of the settings to its end.

    Raises:
        RunStopped: if `stop` is set before that; the round under way is run again on resuming.
    """
    settings = federation.settings
    timeout = float(settings.config["round_timeout"])
    nodes = ask_nodes(grid, settings.num_clients, timeout, stop)
    ordered = OrderedGrid(grid, nodes, timeout, stop)
    stage = Stage(federation, ordered, nodes, folder, tracker, display)
    try:
        for arm in settings.arms:
            run_arm(stage, arm)
            write_summary(folder, settings)
    finally:
        display.stop()


def make_server_app(run: Callable[[Grid], None] | None = None) -> ServerApp:
    """Return the ServerApp.

    Args:
        run: What to do with the grid; None prepares a run from Flower's run configuration, as
            `flwr run` needs it.
    """
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        """Run all arms."""
        torch.set_num_threads(1)
        if run is not None:
            run(grid)
            return
        settings = settings_of(context)
        chosen = str(context.run_config.get("run-dir", ""))
        folder = Path(chosen).expanduser().absolute() if chosen else default_folder(settings)
        federation, tracker = prepare(settings, folder)
        console = Console(force_terminal=False, width=100)
        run_arms(grid, federation, folder, tracker, display_for(console))
        console.print(summary_table(write_summary(folder, settings)))
        if settings.scan_final_model:
            from fl_shield.simulations.final_scan import scan_finished

            scan_finished(folder, settings, console)
        console.print(f"Run folder: {folder}", highlight=False, soft_wrap=True)

    return server_app


app = make_server_app()
