"""Which node simulates which client, and a grid that makes runs of a seed repeatable.

Flower gives nodes random ids and returns replies as they arrive. `NodeMap` asks every node once
for its client number; `OrderedGrid` lists nodes and returns replies by that number, so that
sampling follows the seed and sums are formed in the same order in every run of it. The map is
ground truth of the simulation: defences never see it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fl_shield.errors import FlShieldError

PULL_SECONDS = 0.05
"""How often replies are looked for by a grid that can be stopped."""


class RunStopped(Exception):  # noqa: N818 - not a fault: somebody asked for it
    """The run was asked to stop, and goes no further."""


class NodeMap:
    """Node ids and client numbers.

    Args:
        clients: Node id to client number.
    """

    def __init__(self, clients: Mapping[int, int]) -> None:
        self.clients = dict(clients)

    def order(self, node_id: int) -> int:
        """Return where a node stands; unknown ones come last."""
        return self.clients.get(node_id, len(self.clients))


def ask_nodes(
    grid: Grid, num_clients: int, timeout: float, stop: threading.Event | None = None
) -> NodeMap:
    """Return the map of all nodes, once `num_clients` of them are there.

    Args:
        grid: Flower's grid.
        num_clients: How many nodes there must be.
        timeout: Seconds after which nodes that are absent or silent are given up.
        stop: When set, waiting ends with `RunStopped`.

    Raises:
        FlShieldError: if they do not appear, or do not answer, in time.
        RunStopped: if the run is asked to stop meanwhile.
    """
    deadline = time.monotonic() + timeout
    while len(nodes := sorted(grid.get_node_ids())) < num_clients:
        if time.monotonic() > deadline:
            raise FlShieldError(
                f"Expected {num_clients} nodes, found {len(nodes)} after {timeout:.0f} s. With "
                f"`flwr run`, add --federation-config 'num-supernodes={num_clients}'."
            )
        if stop is not None and stop.is_set():
            raise RunStopped
        time.sleep(0.2)
    if len(nodes) > num_clients:
        raise FlShieldError(
            f"Expected {num_clients} nodes (num_clients), found {len(nodes)}. With `flwr run`, add "
            f"--federation-config 'num-supernodes={num_clients}', or set num_clients={len(nodes)}."
        )
    questions = [
        Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY) for node in nodes
    ]
    replies = list(OrderedGrid(grid, NodeMap({}), timeout, stop).send_and_receive(questions))
    clients = {
        reply.metadata.src_node_id: int(
            str(reply.content.metric_records["metrics"]["partition-id"])
        )
        for reply in replies
        if not reply.has_error()
    }
    if len(clients) < num_clients:
        failed = next((str(r.error.reason) for r in replies if r.has_error()), "no answer")
        raise FlShieldError(
            f"Only {len(clients)} of {num_clients} simulated clients started; the first failure "
            f"says: {failed.strip().splitlines()[-1] if failed.strip() else 'nothing'}"
        )
    return NodeMap(clients)


class OrderedGrid(Grid):
    """A grid whose nodes and replies come in the order of their client numbers.

    Args:
        grid: The grid that does the work.
        nodes: The order.
        timeout: Seconds after which clients that have not answered are given up.
        stop: When set, waiting ends with `RunStopped`; None leaves waiting to the inner grid.
    """

    def __init__(
        self, grid: Grid, nodes: NodeMap, timeout: float, stop: threading.Event | None = None
    ) -> None:
        self._grid, self._nodes, self._timeout, self._stop = grid, nodes, timeout, stop

    def set_run(self, run: object) -> None:
        """Set the run that the grid works in."""
        self._grid.set_run(run)  # type: ignore[arg-type]

    @property
    def run(self) -> object:  # type: ignore[override]
        """Run information."""
        return self._grid.run

    def create_message(self, *args: object, **kwargs: object) -> Message:
        """Create a message as the inner grid does."""
        return self._grid.create_message(*args, **kwargs)  # type: ignore[arg-type]

    def get_node_ids(self) -> Iterable[int]:
        """Return the node ids, ordered by client number."""
        return sorted(self._grid.get_node_ids(), key=self._nodes.order)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push messages."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull messages."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Return the replies, ordered by client number.

        Raises:
            RunStopped: if the run is asked to stop before all replies are there.
        """
        limit = self._timeout if timeout is None else min(timeout, self._timeout)
        if self._stop is None:
            replies = self._grid.send_and_receive(messages, timeout=limit)
        else:
            replies = self._receive_until_stopped(messages, limit, self._stop)
        return sorted(replies, key=lambda reply: self._nodes.order(reply.metadata.src_node_id))

    def _receive_until_stopped(
        self, messages: Iterable[Message], limit: float, stop: threading.Event
    ) -> list[Message]:
        waiting = set(self._grid.push_messages(messages))
        replies: list[Message] = []
        deadline = time.monotonic() + limit
        while waiting and time.monotonic() < deadline:
            if stop.is_set():
                raise RunStopped
            arrived = list(self._grid.pull_messages(waiting))
            replies += arrived
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            if waiting and not arrived:
                stop.wait(PULL_SECONDS)
        return replies
