"""A SuperLink with TLS and authenticated SuperNodes, in real processes on loopback."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.journeys._commands import environment

BIN = Path(sys.executable).parent
MARK = "FL_SHIELD_TEST"
"""Environment variable that all processes of a deployment inherit, so that none is left behind."""


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on; all are held until the last one is found."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for bound in sockets:
            bound.bind(("127.0.0.1", 0))
        return [int(bound.getsockname()[1]) for bound in sockets]


def write_certificates(folder: Path) -> None:
    """Write ca.crt, server.pem and server.key, valid for localhost, without openssl."""
    authority, server = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "superlink")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    for file, name, key, extension in (
        ("ca.crt", issuer, authority, x509.BasicConstraints(ca=True, path_length=None)),
        ("server.pem", subject, server, x509.SubjectAlternativeName(names)),
    ):
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(extension, critical=file == "ca.crt")
            .sign(authority, hashes.SHA256())
        )
        (folder / file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(
        server.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def write_node_key(folder: Path, name: str) -> Path:
    """Write a node's key pair in the form of ssh-keygen, and return the private half's path."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = folder / name
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    private.with_suffix(".pub").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
    )
    return private


class Deployment:
    """Processes of one SuperLink and its SuperNodes, with keys, state and logs in a folder."""

    def __init__(self, folder: Path, num_ports: int) -> None:
        self.folder = folder
        self.ports = free_ports(num_ports)
        self.address = f"127.0.0.1:{self.ports.pop()}"
        home = folder / "flwr"
        home.mkdir()
        write_certificates(folder)
        (home / "config.toml").write_text(
            '[superlink]\ndefault = "production"\n\n[superlink.production]\n'
            f'address = "{self.address}"\nroot-certificates = "{folder / "ca.crt"}"\n',
            encoding="utf-8",
        )
        self.environment = environment(
            FLWR_HOME=str(home),
            PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}",
            **{MARK: str(folder)},
        )
        self._processes: list[subprocess.Popen[bytes]] = []

    def start_superlink(self) -> None:
        """Start the SuperLink and wait until it answers over TLS."""
        self._start(
            "superlink", "flower-superlink",
            "--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "server.pem",
            "--ssl-keyfile", "server.key", "--enable-supernode-auth", "--database", "state.db",
            "--port", self.address.split(":")[1], "--disable-runtime-dependency-installation",
        )  # fmt: skip
        self.wait_until(self._is_healthy, 120, "the SuperLink answers", "superlink")

    def register(self, public_key: Path) -> int:
        """Register a node's key as the operator does, and return its node id."""
        shown = self.flwr("supernode", "register", str(public_key), "production")
        return int(re.findall(r"\b\d{10,}\b", shown)[0])

    def start_supernode(
        self, name: str, private_key: Path, node_config: str
    ) -> subprocess.Popen[bytes]:
        """Start a SuperNode under a key."""
        return self._start(
            name, "flower-supernode", "--root-certificates", "ca.crt",
            "--superlink", self.address, "--port", str(self.ports.pop()),
            "--auth-supernode-private-key", str(private_key), "--node-config", node_config,
        )  # fmt: skip

    def online(self) -> int:
        """Return how many SuperNodes are online."""
        shown = json.loads(self.flwr("supernode", "list", "production", "--format", "json"))
        return sum(node["status"] == "online" for node in shown["nodes"])

    def flwr(self, *arguments: str, timeout: float = 120) -> str:
        """Run `flwr` and return what it shows."""
        done = subprocess.run(
            [str(BIN / "flwr"), *arguments], cwd=self.folder, env=self.environment,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout

    def log(self, name: str) -> str:
        """Return what a process has written so far."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def wait_until(
        self, condition: Callable[[], bool], seconds: float, what: str, name: str = "superlink"
    ) -> None:
        """Wait for a condition, and show a process's log when it does not come true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (
                f"waited {seconds:.0f} s until {what}\n{self.log(name)[-3000:]}"
            )
            time.sleep(0.5)

    def left_over(self) -> list[int]:
        """Return the ids of all processes of this deployment, children of children included."""
        mark = f"{MARK}={self.folder}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                entries = (process / "environ").read_bytes().split(b"\0")
                is_zombie = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                continue
            if mark in entries and not is_zombie:
                found.append(int(process.name))
        return found

    def stop(self) -> None:
        """Ask all processes to end, SuperNodes first, as an operator would."""
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait(60)

    def kill(self) -> None:
        """End whatever still runs, at once."""
        for pid in self.left_over():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for process in self._processes:
            process.kill()
            process.wait(10)

    def _start(self, name: str, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(BIN / program), *arguments], cwd=self.folder, env=self.environment,
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def _is_healthy(self) -> bool:
        trusted = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        try:
            with urllib.request.urlopen(
                f"https://{self.address}/health", timeout=5, context=trusted
            ) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def deployment(folder: Path, num_ports: int) -> Iterator[Deployment]:
    """Yield a deployment of which no process outlives the block, whatever happens in it."""
    deployed = Deployment(folder, num_ports)
    try:
        yield deployed
    finally:
        deployed.kill()


def run_status(shown: Any) -> dict[str, str]:
    """Return the status of every run in the JSON of `flwr list`."""
    return {str(run["run-id"]): str(run["status"]) for run in shown["runs"]}
