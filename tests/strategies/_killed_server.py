"""A server that dies: runs a shielded federation, kills itself at a chosen point, starts again.

Run as `python -m tests.strategies._killed_server FOLDER POINTS`. A life of the server is a forked
process, so that hundreds of deaths cost one import of torch. Points are counted in calls and
system calls of the code that writes state, which are the places where dying could hurt.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from flwr.app import Message
from flwr.serverapp.strategy import FedAdam, Result
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import save_file

from fl_shield.strategies import MetaShield
from tests.strategies._rounds import (
    InMemoryGrid,
    NormDetector,
    NormInspector,
    from_record,
    global_weights,
    honest_weights,
    make_model,
    make_probes,
    to_record,
    train_reply,
)

ROUNDS = 6
NODES = (3, 5, 7, 9, 11, 13)
MALICIOUS = 11
WATCHED = ("checkpoint.py", "resume.py", "shielded.py", "shield_core.py", "audit.py")


class OrderedGrid(InMemoryGrid):
    """Grid whose replies come in the order of the nodes, so that sums are equal bit for bit."""

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send all messages and return the replies, sorted."""
        replies = super().send_and_receive(messages, timeout=timeout)
        return sorted(replies, key=lambda reply: reply.metadata.src_node_id)


def client(message: Message) -> Message:
    """Train: move the global model by noise of this client and round; one client moves it far."""
    node = message.metadata.dst_node_id
    reference = from_record(message.content["arrays"])  # type: ignore[arg-type]
    number = int(message.content.config_records["config"]["server-round"])  # type: ignore[arg-type]
    size = 9.0 if node == MALICIOUS and number in (2, 3) else 0.1
    weights = honest_weights(100 * number + node, reference, size)
    return train_reply(message, weights, num_examples=node)


def serve(folder: Path) -> Result:
    """Run the server to its end, from whatever its state folder holds."""
    strategy = MetaShield(
        FedAdam(fraction_evaluate=0.0, min_available_nodes=1),
        make_model(),
        make_probes(),
        inspector=NormInspector(),
        detector=NormDetector(),
        evidence_threshold=4.0,
        audit_log=folder / "audit.jsonl",
        state=folder / "state",
    )
    result = strategy.start(
        OrderedGrid(NODES, client), to_record(global_weights()), num_rounds=ROUNDS
    )
    assert isinstance(result, Result)
    save_file(from_record(result.arrays), folder / "final.safetensors")
    (folder / "shield.json").write_text(json.dumps(strategy.state_dict()))
    return result


@dataclass
class Death:
    """Kills its own process at the n-th watched event."""

    point: int
    seen: int = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Count an event, and die at the right one."""
        is_call = event == "call" or (
            event == "c_call" and argument.__name__ in ("fsync", "replace")
        )
        if is_call and frame.f_code.co_filename.endswith(WATCHED):
            self.seen += 1
            if self.seen == self.point:
                os.kill(os.getpid(), signal.SIGKILL)


def live(run: Callable[[], object]) -> bool:
    """Run in a process of its own; return whether it lived to the end."""
    child = os.fork()
    if child == 0:
        try:
            run()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a server failed instead of dying or finishing")
    return os.WIFEXITED(status)


def die_and_finish(folder: Path, every: int, deaths: int) -> int:
    """Let a server die at its `every`-th event, at most `deaths` times; return how often it did."""
    folder.mkdir(parents=True)

    def doomed() -> None:
        sys.setprofile(Death(every))
        serve(folder)

    count = 0
    while count < deaths and not live(doomed):
        count += 1
    assert live(lambda: serve(folder))
    return count


def main() -> None:
    """Run the undisturbed server, then one dying server a point, then one that dies often."""
    folder, points = Path(sys.argv[1]), int(sys.argv[2])
    for name in ("_run_id", "_task_id", "_node_id"):
        setattr(TaskIdentity, name, 1)
    (folder / "whole").mkdir(parents=True)
    serve(folder / "whole")
    counter = Death(point=-1)
    (folder / "counted").mkdir()
    sys.setprofile(counter)
    serve(folder / "counted")
    sys.setprofile(None)
    total = counter.seen
    died = {}
    for index in range(points):
        point = 1 + index * (total - 1) // max(points - 1, 1)
        died[f"at-{point}"] = die_and_finish(folder / f"at-{point}", point, deaths=1)
    died["often"] = die_and_finish(folder / "often", total // 4, deaths=100)
    (folder / "died.json").write_text(json.dumps({"events": total, "died": died}))


if __name__ == "__main__":
    main()
