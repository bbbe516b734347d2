"""The example app on a SuperLink with TLS and authenticated SuperNodes, one of them malicious.

The journey runs the app in `examples/production` as it is shipped; the quick tests before it look
at what only people would run: the script for certificates and the commands of the page.
"""

import json
import re
import shutil
import ssl
import subprocess
import time
import tomllib
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Context, RecordDict
from flwr.cli.supernode.register import try_load_public_key
from flwr.common.config import flatten_dict, parse_config_args
from flwr.supercore.task_identity import TaskIdentity
from safetensors.torch import load_file

from fl_shield.audit import read_audit
from fl_shield.strategies import options_from_run_config
from tests._loopback_grid import LoopbackGrid
from tests.journeys._commands import ROOT
from tests.journeys._deployment import Deployment, deployment, run_status, write_node_key

APP = ROOT / "examples" / "production"
NODES, ROUNDS = 5, 3
MALICIOUS = NODES - 1

NEEDS_PROC = pytest.mark.skipif(
    not Path("/proc").is_dir(), reason="finds processes to end under /proc"
)


def start_nodes(deployed: Deployment) -> dict[int, int]:
    """Register and start all nodes; return the partition of each node id."""
    partition_of = {}
    for partition in range(NODES):
        key = write_node_key(deployed.folder, f"node{partition}")
        partition_of[deployed.register(key.with_suffix(".pub"))] = partition
        config = f"partition-id={partition} num-partitions={NODES}"
        if partition == MALICIOUS:
            config += " malicious=true"
        deployed.start_supernode(f"node{partition}", key, config)
    return partition_of


def listed_keys() -> dict[str, bool | float | int | str]:
    """Return the keys that the app lists for `--run-config`, with their defaults."""
    project = tomllib.loads((APP / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(flatten_dict(project["tool"]["flwr"]["app"]["config"]))


def test_the_shield_takes_ten_lines_at_most() -> None:
    """Every line of the ServerApp that would not be there without the shield names one of these."""
    source = (APP / "shielded_digits" / "server_app.py").read_text(encoding="utf-8")
    lines = [
        line for line in source.splitlines()
        if re.search(r"MetaShield|options_from_run_config|probes", line)
    ]  # fmt: skip
    assert 2 <= len(lines) <= 10, lines


def test_the_keys_of_the_app_and_of_the_page_are_options_of_the_shield() -> None:
    keys = listed_keys()
    assert set(options_from_run_config(keys)) == {
        "policy", "max_drop_share", "max_client_share", "clip_survivors",
    }  # fmt: skip
    page = (ROOT / "docs" / "production.md").read_text(encoding="utf-8")
    given = {
        key
        for block in re.findall(r"^```bash\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
        for config in re.findall(r"--run-config[ \\\n]+'([^']*)'", block)
        for key in parse_config_args([config])
    }
    assert given
    assert given <= set(keys)
    (table,) = re.findall(r"^```toml\n(\[tool\.flwr\.app.*?)^```", page, re.MULTILINE | re.DOTALL)
    settings = tomllib.loads(table)["tool"]["flwr"]["app"]["config"]
    assert options_from_run_config(flatten_dict(settings)) == {
        "policy": "graded",
        "max_drop_share": 0.45,
    }


def attack_success(folder: Path, monkeypatch: pytest.MonkeyPatch, policy: str) -> float:
    """Run the app in one process, and return what share of patched digits becomes a zero."""
    for name in ("_run_id", "_task_id", "_node_id"):  # messages ask the process for its identity
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.syspath_prepend(str(APP))
    task, client_app, server_app = (
        import_module(f"shielded_digits.{name}") for name in ("task", "client_app", "server_app")
    )
    final = folder / f"{policy}.safetensors"
    config = listed_keys() | {
        "shield.policy": policy,
        "shield.clip-survivors": policy == "drop",
        "model-file": str(final),
    }
    grid = LoopbackGrid(client_app.app, NODES)
    for context in grid._contexts.values():
        context.run_config.update(config)
        context.node_config["malicious"] = context.node_config["partition-id"] == MALICIOUS
    server_app.app(grid, Context(1, 1, {}, RecordDict(), config))
    model = task.Net()
    model.load_state_dict(load_file(final))
    _, (images, labels) = task.server_samples()
    assert task.accuracy(model, (images, labels)) > 0.7
    triggered = client_app.BACKDOOR.trigger.apply(images[labels != 0])
    return float(task.accuracy(model, (triggered, torch.zeros(len(triggered)))))


def test_the_backdoor_of_the_example_takes_hold_unless_the_shield_drops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example would show nothing if its attack came to nothing by itself."""
    assert attack_success(tmp_path, monkeypatch, "monitor") > 0.5
    assert attack_success(tmp_path, monkeypatch, "drop") < 0.1


@pytest.mark.skipif(
    not (shutil.which("openssl") and shutil.which("ssh-keygen")),
    reason="the script needs openssl and ssh-keygen",
)
def test_the_script_makes_what_flower_accepts(tmp_path: Path) -> None:
    script, folder = str(APP / "certificates.sh"), tmp_path / "flower"
    for nodes in ("1", "2"):  # a second call adds a node and leaves the rest alone
        subprocess.run([script, str(folder), nodes, "shield.test"], check=True)
        first = (folder / "server.pem").read_bytes(), (folder / "keys" / "node0").read_bytes()
    assert first == ((folder / "server.pem").read_bytes(), (folder / "keys" / "node0").read_bytes())
    for node in range(2):
        private = folder / "keys" / f"node{node}"
        key = serialization.load_ssh_private_key(private.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert try_load_public_key(private.with_suffix(".pub"))
        assert private.stat().st_mode & 0o077 == 0
    for name in ("localhost", "127.0.0.1", "shield.test"):
        assert shakes_hands(folder, name)
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for 'other.test'"):
        shakes_hands(folder, "other.test")
    wrong = subprocess.run([script, "x"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "usage: certificates.sh FOLDER NUM_NODES" in wrong.stderr


def shakes_hands(folder: Path, name: str) -> bool:
    """Return whether a client that trusts ca.crt accepts server.pem under a name, in memory."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem", folder / "server.key")
    client = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for end in ends * 3:
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return ends[0].version() is not None


@pytest.mark.slow
@pytest.mark.timeout(900)  # 85 s of CPU in a dozen processes: minutes where others work too
@NEEDS_PROC
def test_the_malicious_node_of_a_real_deployment_is_caught(tmp_path: Path) -> None:
    with deployment(tmp_path, num_ports=NODES + 2) as deployed:
        deployed.start_superlink()
        stranger = deployed.start_supernode(
            "stranger", write_node_key(tmp_path, "stranger"), "partition-id=0 num-partitions=1"
        )
        partition_of = start_nodes(deployed)
        deployed.wait_until(lambda: deployed.online() == NODES, 180, "all nodes are online")

        # A key that nobody registered gets no answer but a refusal.
        assert stranger.wait(120) != 0
        assert "Exit Code: 305" in deployed.log("stranger"), deployed.log("stranger")[-2000:]

        # Two runs: the second goes on from the state of the first, with one node banned.
        audit, model = tmp_path / "audit.jsonl", tmp_path / "model.safetensors"
        (banned,) = (node for node, partition in partition_of.items() if partition == 0)
        settings = (
            f'num-nodes={NODES} model-file="{model}" shield.audit-log="{audit}" '
            f'shield.state="{tmp_path / "shield"}"'
        )
        for added in (
            f"num-server-rounds={ROUNDS - 1}",
            f'num-server-rounds={ROUNDS} shield.banned-nodes="{banned}"',
        ):
            shown = deployed.flwr(
                "run", str(APP), "production", "--stream", "--run-config", f"{settings} {added}",
                timeout=700,
            )  # fmt: skip
        status = run_status(json.loads(deployed.flwr("list", "production", "--format", "json")))
        assert list(status.values()) == ["finished:completed"] * 2, shown[-3000:]

        records = read_audit(audit)
        assert [record["round"] for record in records] == sorted([*range(1, ROUNDS + 1)] * NODES)
        pinned = [r for r in records if r["round"] == ROUNDS and int(r["node_id"]) == banned]
        assert [record["detail"] for record in pinned] == ["banned by the operator."]
        dropped = [
            (record["round"], partition_of[int(record["node_id"])])
            for record in records
            if record["decision"] != "keep" and record not in pinned
        ]
        innocent = [node for _, node in dropped if node != MALICIOUS]
        # Five nodes are a small yardstick: the first rounds may pass, the last one must not.
        assert (ROUNDS, MALICIOUS) in dropped, dropped
        assert len(innocent) <= 1, dropped  # of 11 honest updates

        weights = load_file(model)
        assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())

        deployed.stop()
        deadline = time.monotonic() + 20
        while deployed.left_over() and time.monotonic() < deadline:
            time.sleep(0.5)
        assert deployed.left_over() == []
