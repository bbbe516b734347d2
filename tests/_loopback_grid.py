"""A Flower grid in one process: messages go straight to a real ClientApp, without an engine."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from uuid import uuid4

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

UserConfig = dict[str, bool | float | int | str]


class LoopbackGrid(Grid):
    """Simulates a node for each client, under random ids as Flower gives them.

    Args:
        client_app: What every node runs.
        num_clients: Number of nodes.
        session: Seed of node ids and of the order in which replies arrive.
        on_push: Called with the number of pushes so far, before the messages are delivered.
    """

    pull_interval = 0.0

    def __init__(
        self,
        client_app: ClientApp,
        num_clients: int,
        session: int = 0,
        on_push: Callable[[int], None] = lambda _pushes: None,
    ) -> None:
        self._rng = random.Random(session)
        self._app, self._on_push, self._pushes = client_app, on_push, 0
        self._contexts = {}
        for client in range(num_clients):
            node = self._rng.getrandbits(63)
            config: UserConfig = {"partition-id": client, "num-partitions": num_clients}
            self._contexts[node] = Context(1, node, config, RecordDict(), {})
        self._replies: dict[str, Message] = {}

    def set_run(self, run: object) -> None:
        """Nothing depends on the run."""

    @property
    def run(self) -> object:  # type: ignore[override]
        """Nothing depends on the run."""
        return None

    def create_message(self, *args: object, **kwargs: object) -> Message:
        """Nobody uses the deprecated way to make messages."""
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids in no useful order."""
        return self._rng.sample(list(self._contexts), len(self._contexts))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Let every addressed node work at once."""
        self._on_push(self._pushes)
        self._pushes += 1
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            reply = self._app(message, self._contexts[message.metadata.dst_node_id])
            self._replies[message.metadata.message_id] = reply
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return replies in the order of their arrival, which is any."""
        ready = [self._replies.pop(i) for i in sorted(message_ids) if i in self._replies]
        return self._rng.sample(ready, len(ready))

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push and pull."""
        return self.pull_messages(self.push_messages(messages))
