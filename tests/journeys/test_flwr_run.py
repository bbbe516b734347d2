"""`flwr run` with the same apps: a managed local SuperLink and Flower's simulation runtime."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys._commands import ROOT, SMALL, environment

pytestmark = pytest.mark.slow


def free_ports() -> tuple[str, str]:
    with socket.socket() as one, socket.socket() as other:
        for bound in (one, other):
            bound.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1]), str(other.getsockname()[1])


@pytest.fixture
def flower_home(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give `flwr` a home and ports of its own, and end the SuperLink it leaves running."""
    http, control = free_ports()
    env = environment(
        FLWR_HOME=str(tmp_path / "flwr"),
        FLWR_LOCAL_SUPERLINK_HTTP_API_PORT=http,
        FLWR_LOCAL_CONTROL_API_PORT=control,
        FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION="1",
        FL_SHIELD_TEST=str(tmp_path),
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    )
    yield env
    for process in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"FL_SHIELD_TEST={tmp_path}".encode() in (process / "environ").read_bytes()
        except OSError:
            continue
        if marked and int(process.name) != os.getpid():
            os.kill(int(process.name), signal.SIGKILL)


@pytest.mark.timeout(400)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes to end under /proc")
def test_the_same_run_through_flwr_run(tmp_path: Path, flower_home: dict[str, str]) -> None:
    app = tmp_path / "app"
    app.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, app)
    folder = tmp_path / "run"
    overrides = " ".join([*SMALL, "rounds=2", "tracking=none", "arms=[defended]"])
    result = subprocess.run(
        [
            str(Path(sys.executable).parent / "flwr"), "run", ".", "--stream",
            "--federation-config",
            "num-supernodes=6 client-resources-num-cpus=1 init-args-num-cpus=2",
            "--run-config", f'overrides="{overrides}" run-dir="{folder}"',
        ],
        cwd=app, env=flower_home, capture_output=True, text=True, timeout=350, check=False,
    )  # fmt: skip
    shown = result.stdout + result.stderr
    deadline = time.monotonic() + 30
    while not (folder / "summary.json").exists() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert (folder / "summary.json").exists(), shown[-3000:]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["finished"] is True, shown[-3000:]
    assert summary["runs"]["defended"]["rounds"] == 2
    assert "attack, defended" in shown
