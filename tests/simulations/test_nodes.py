"""Nodes and the ordered grid: ground truth, repeatable order, and waiting that can be ended."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from flwr.app import Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from fl_shield.errors import FlShieldError
from fl_shield.simulations.nodes import NodeMap, OrderedGrid, RunStopped, ask_nodes
from tests._loopback_grid import LoopbackGrid


@pytest.fixture(autouse=True)
def _in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_id", "_task_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def answering(*, broken: bool = False) -> Any:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        """Tell the client's number."""
        answer = MetricRecord({"partition-id": int(context.node_config["partition-id"])})
        return Message(RecordDict({"metrics": answer}), reply_to=message)

    def fail(message: Message, _context: Context) -> Message:
        from flwr.app import Error

        return Message(Error(2, "No module named 'tourch'"), reply_to=message)

    return fail if broken else app


class Mute(LoopbackGrid):
    """Takes messages and never has a reply."""

    def push_messages(self, messages: Any) -> list[str]:
        list(super().push_messages(messages))
        self._replies.clear()
        return ["an answer that does not come"]


def questions(grid: LoopbackGrid) -> list[Message]:
    return [
        Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY)
        for node in grid.get_node_ids()
    ]


def test_every_node_tells_which_client_it_is() -> None:
    grid = LoopbackGrid(answering(), 7)
    nodes = ask_nodes(grid, 7, timeout=5)
    assert sorted(nodes.clients) == sorted(grid.get_node_ids())
    assert sorted(nodes.clients.values()) == list(range(7))


@pytest.mark.parametrize("stop", [None, threading.Event()], ids=["inner", "stoppable"])
def test_nodes_and_replies_come_in_the_order_of_clients(stop: threading.Event | None) -> None:
    orders = []
    for session in (1, 2):
        inner = LoopbackGrid(answering(), 9, session)
        nodes = ask_nodes(inner, 9, timeout=5)
        grid = OrderedGrid(inner, nodes, timeout=5, stop=stop)
        assert [nodes.order(node) for node in grid.get_node_ids()] == list(range(9))
        replies = list(grid.send_and_receive(questions(inner)))
        orders.append([nodes.order(reply.metadata.src_node_id) for reply in replies])
    assert orders == [list(range(9))] * 2


def test_strangers_come_last() -> None:
    nodes = NodeMap({50: 1, 40: 0})
    assert sorted([7, 50, 40], key=nodes.order) == [40, 50, 7]


@pytest.mark.parametrize(
    ("there", "match"),
    [(3, "Expected 5 nodes, found 3 after"), (8, r"Expected 5 nodes \(num_clients\), found 8")],
)
def test_another_number_of_nodes_is_named_with_the_cure(there: int, match: str) -> None:
    with pytest.raises(FlShieldError, match=match) as caught:
        ask_nodes(LoopbackGrid(answering(), there), 5, timeout=0.1)
    assert "num-supernodes=5" in str(caught.value)


def test_clients_that_cannot_start_are_named_with_their_reason() -> None:
    with pytest.raises(FlShieldError, match="Only 0 of 3 .* No module named 'tourch'"):
        ask_nodes(LoopbackGrid(answering(broken=True), 3), 3, timeout=5)


def test_waiting_ends_when_the_run_is_stopped() -> None:
    inner, stop = Mute(answering(), 2), threading.Event()
    grid = OrderedGrid(inner, NodeMap({}), timeout=60, stop=stop)
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    with pytest.raises(RunStopped):
        grid.send_and_receive(questions(inner))
    assert time.monotonic() - started < 10
    with pytest.raises(RunStopped):
        ask_nodes(LoopbackGrid(answering(), 1), 5, timeout=60, stop=stop)


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_silent_clients_are_given_up_after_the_timeout_of_the_run(timeout: float | None) -> None:
    inner = Mute(answering(), 2)
    grid = OrderedGrid(inner, NodeMap({}), timeout=0.2, stop=threading.Event())
    started = time.monotonic()
    assert grid.send_and_receive(questions(inner), timeout=timeout) == []
    assert 0.2 <= time.monotonic() - started < 10
