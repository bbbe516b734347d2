"""Running the real command line in processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SMALL = (
    "num_clients=6", "attackers=2", "warm_start.epochs=10", "probes.num_samples=32",
    "data.max_train=400", "data.max_test=100", "simulation.num_cpus=2",
)  # fmt: skip
"""A federation of seconds."""


def environment(**extra: str) -> dict[str, str]:
    """Return an environment without network habits, in which the source tree can be imported."""
    quiet = {
        "OMP_NUM_THREADS": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PYTHONPATH": str(ROOT),
    }
    return {**os.environ, **quiet, **extra}


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """Start `fl-shield` with arguments."""
    return subprocess.Popen(
        [sys.executable, "-m", "fl_shield.simulations.cli", *arguments],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_interruptible,
    )


def _interruptible() -> None:
    """Undo what background jobs of a shell inherit: they ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(*arguments: str, cwd: Path, timeout: float = 300) -> tuple[int, str, str]:
    """Run `fl-shield` with arguments; return exit status, standard output, standard error."""
    process = start(*arguments, cwd=cwd)
    try:
        output, errors = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, output, errors
