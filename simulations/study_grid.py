"""A Flower grid within one process: what a cell of a study trains its clients on.

Flower's simulation engine spreads the clients of *one* run over processes. A study spreads *runs*
over processes instead, and needs each of them to start at once and to stay in its process. The
ClientApp and its messages are the same, and so are the figures.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

CLIENT_FAILED = 1
"""Code of the error reply of a client whose app raised, as the engine's reply has one."""


class OneProcessGrid(Grid):
    """Lets every node work when it is addressed, one after the other.

    Args:
        client_app: What every node runs.
        num_clients: Number of nodes.
    """

    def __init__(self, client_app: ClientApp, num_clients: int) -> None:
        # Messages ask the process for its identity, which the engine sets when it starts.
        TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1
        self._app = client_app
        self._contexts: dict[int, Context] = {}
        ids = random.SystemRandom()
        for client in range(num_clients):
            node = ids.getrandbits(63)
            config: dict[str, bool | float | int | str]
            config = {"partition-id": client, "num-partitions": num_clients}
            self._contexts[node] = Context(1, node, config, RecordDict(), {})
        self._replies: dict[str, Message] = {}

    def set_run(self, run: object) -> None:
        """Nothing depends on the run."""

    @property
    def run(self) -> object:  # type: ignore[override]
        """Nothing depends on the run."""
        return None

    def create_message(self, *args: object, **kwargs: object) -> Message:
        """Refuse: Flower has deprecated this way to make messages."""
        raise NotImplementedError("Make messages with Message(…).")

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Let every addressed node work at once; returns the ids of the messages."""
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            self._replies[message.metadata.message_id] = self._answer(message)
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to messages that were pushed."""
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push and pull; nobody is late in one process."""
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message) -> Message:
        try:
            return self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:  # a client's fault is an error reply, as from the engine
            reason = f"{type(error).__name__}: {error}"
            return Message(Error(CLIENT_FAILED, reason), reply_to=message)
