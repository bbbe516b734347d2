"""What Flower's simulation engine costs beside training: `make results-engines`.

The same small federations, seed by seed, once in Flower's simulation engine and once in a single
process (`engine=in_process`), each run in a process of its own and both with one client at a time,
so that seconds can be subtracted. Every client measures its own work; what is left of the run is
start, messages, aggregation, evaluation and records. Writes `docs/results/engines.json` and the
table in `docs/studies.md`.

    python -m benchmarks.engines
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from flwr.app import Context, Message, MessageType
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from rich.console import Console

from benchmarks.marked_table import write_table
from fl_shield.simulations.client_app import make_client_app
from fl_shield.simulations.composing import compose_config
from fl_shield.simulations.federation import build_federation
from fl_shield.simulations.in_parallel import QUIET_RAY
from fl_shield.simulations.progress import PlainLines
from fl_shield.simulations.server_app import make_server_app, prepare, run_arms
from fl_shield.simulations.settings import Settings, settings_from
from fl_shield.simulations.simulate import backend_config, flower_log
from fl_shield.simulations.study_grid import OneProcessGrid

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "studies.md"
TABLE = "engines-table"
ENGINES = ("flower", "in_process")
SEEDS = (0, 1)
SETTINGS = (
    "data=digits", "rounds=5", "num_clients=20", "arms=[undefended]", "simulation.num_cpus=1",
    "tracking=none",
)  # fmt: skip
FIGURES = ("main_accuracy", "asr", "loss")
"""What both engines must agree on, after every round."""


class TimedApp(ClientApp):
    """A ClientApp that writes down how long each training took, in a file for each process.

    Args:
        app: The app.
        settings: The run's settings; the federation is built from them before the clock starts.
        folder: Where the files go.
    """

    def __init__(self, app: ClientApp, settings: Settings, folder: Path) -> None:
        super().__init__()
        self.app, self.settings, self.folder = app, settings, folder

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message."""
        if message.metadata.message_type != MessageType.TRAIN:
            return self.app(message, context)
        build_federation(self.settings)
        started = time.perf_counter()
        reply = self.app(message, context)
        with (self.folder / f"{os.getpid()}.txt").open("a") as lines:
            lines.write(f"{time.perf_counter() - started}\n")
        return reply


def play(engine: str, seed: int, folder: Path) -> dict[str, Any]:
    """Play one federation and return seconds and figures."""
    settings = settings_from(compose_config([*SETTINGS, f"engine={engine}", f"seed={seed}"]))
    federation, tracker = prepare(settings, folder)
    clients = folder / "clients"
    clients.mkdir()
    app = TimedApp(make_client_app(settings), settings, clients)
    marks: list[float] = []

    def run(grid: Grid) -> None:
        marks.append(time.perf_counter())
        with (folder / "progress.log").open("w") as stream:
            run_arms(grid, federation, folder, tracker, PlainLines(Console(file=stream)))
        marks.append(time.perf_counter())

    started = time.perf_counter()
    with flower_log(folder / "flower.log"):
        if engine == "in_process":
            run(OneProcessGrid(app, settings.num_clients))
        else:
            from flwr.simulation import run_simulation

            run_simulation(
                server_app=make_server_app(run),
                client_app=app,
                num_supernodes=settings.num_clients,
                backend_config=backend_config(settings),
            )
    ended = time.perf_counter()
    trained = [float(line) for file in clients.glob("*.txt") for line in file.open()]
    rounds = (folder / "arms" / "undefended" / "rounds.jsonl").read_text().splitlines()
    return {
        "engine": engine,
        "seed": seed,
        "seconds": ended - started,
        "start_and_end": ended - started - (marks[1] - marks[0]),
        "training": sum(trained),
        "trainings": len(trained),
        "figures": [{key: json.loads(line)[key] for key in FIGURES} for line in rounds],
    }


def in_own_process(engine: str, seed: int) -> dict[str, Any]:
    """Return what `play` returns in a fresh process, with one thread to compute with."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.engines", "--play", engine, str(seed), folder]
        quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
        environment = {**os.environ, **QUIET_RAY, **quiet, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=ROOT, check=True, env=environment)
        found: dict[str, Any] = json.loads(result.read_text())
        return found


def outside(runs: Sequence[Mapping[str, Any]]) -> float:
    """Return the share of the runs' seconds in which no client trained.

    >>> outside([{"seconds": 10.0, "training": 4.0}, {"seconds": 10.0, "training": 6.0}])
    0.5
    """
    return 1.0 - float(sum(run["training"] for run in runs) / sum(run["seconds"] for run in runs))


def largest_difference(runs: Sequence[Mapping[str, Any]]) -> float:
    """Return by how much any figure of a round differs between runs of the same seed."""
    by_seed: dict[int, list[Any]] = {}
    for run in runs:
        values = [value for entry in run["figures"] for value in entry.values()]
        by_seed.setdefault(run["seed"], []).append(values)
    return max(
        float(abs((a or 0.0) - (b or 0.0)))
        for first, *others in by_seed.values()
        for other in others
        for a, b in zip(first, other, strict=True)
    )


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the Markdown table: a line for each engine, means over seeds."""
    lines = [
        "| engine | seconds a run | start and end | clients' training | the rest of the rounds "
        "| outside training |",
        "|---|---|---|---|---|---|",
    ]
    for engine in ENGINES:
        own = [run for run in runs if run["engine"] == engine]
        seconds, ends, training = (
            fmean(run[key] for run in own) for key in ("seconds", "start_and_end", "training")
        )
        rest = seconds - ends - training
        lines.append(
            f"| `{engine}` | {seconds:.1f} | {ends:.1f} | {training:.1f} | {rest:.1f} "
            f"| {100 * outside(own):.0f} % |"
        )
    difference = largest_difference(runs)
    said = "are the same to the last bit" if difference == 0 else f"differ by up to {difference:g}"
    last = runs[-1]
    lines += [
        "",
        f"Means of {len({run['seed'] for run in runs})} seeds, {last['trainings']} trainings each "
        f"(`{' '.join(SETTINGS)}`). Accuracy, attack success and loss after every round {said}.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--play", nargs=3, metavar=("ENGINE", "SEED", "FOLDER"))
    arguments = parser.parse_args()
    if arguments.play:
        engine, seed, folder = arguments.play
        record = play(engine, int(seed), Path(folder) / "run")
        (Path(folder) / "result.json").write_text(json.dumps(record))
        return
    runs = []
    for seed in SEEDS:
        for engine in ENGINES:
            runs.append(in_own_process(engine, seed))
            print(f"{engine}, seed {seed}: {runs[-1]['seconds']:.1f} s")
    record = {
        "command": "make results-engines",
        "settings": SETTINGS,
        "largest_difference": largest_difference(runs),
        "outside": {e: outside([run for run in runs if run["engine"] == e]) for e in ENGINES},
        "runs": runs,
    }
    (RESULTS / "engines.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    write_table(PAGE, TABLE, table(runs))
    print(table(runs))


if __name__ == "__main__":
    main()
