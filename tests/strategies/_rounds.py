"""Real Flower messages of small rounds, and plain stand-ins for inspector and detector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from torch import nn

from fl_shield.cohort import Cohort, State
from fl_shield.descriptors.table import DescriptorTable
from fl_shield.judge.rescale import update_norms

Weights = dict[str, NDArray[Any]]


def make_model() -> nn.Module:
    """Return a model with parameters, floating buffers and an integer counter."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def make_probes() -> torch.Tensor:
    """Return eight clean samples."""
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(1))


def global_weights() -> Weights:
    """Return the initial weights of `make_model`."""
    return {name: t.numpy().copy() for name, t in make_model().state_dict().items()}


def honest_weights(client: int, reference: State, size: float = 0.1) -> Weights:
    """Return the reference moved by client-specific noise, in the dtypes a client sends."""
    rng = np.random.default_rng(client)
    weights: Weights = {}
    for name, array in reference.items():
        if name.endswith("num_batches_tracked"):
            weights[name] = np.asarray(7, dtype=np.int64)
        else:
            noise = size * rng.standard_normal(array.shape)
            weights[name] = np.asarray(np.abs(array.astype(np.float64) + noise), dtype=np.float32)
    return weights


@dataclass
class InMemoryGrid(Grid):
    """Grid of nodes that answer at once; `client` turns a message into a reply or None."""

    nodes: Sequence[int]
    client: Callable[[Message], Message | None] = lambda message: None
    sent: int = 0
    log: list[Message] = field(default_factory=list)

    def set_run(self, run: Any) -> None:
        """Accept any run."""

    @property
    def run(self) -> Any:
        """Nothing asks for the run."""
        return None

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Return a message; kept for the interface."""
        return Message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """Return all nodes."""
        return list(self.nodes)

    def get_nodes(self, *args: Any, **kwargs: Any) -> Any:
        """Nothing asks for node information."""
        return []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Number the messages, as the real grid does."""
        ids = []
        for message in messages:
            self.sent += 1
            message.metadata.__dict__["_message_id"] = f"message-{self.sent}"
            ids.append(f"message-{self.sent}")
            self.log.append(message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Nothing is pulled."""
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send all messages and return the replies."""
        sent = list(messages)
        self.push_messages(sent)
        replies = [self.client(message) for message in sent]
        return [reply for reply in replies if reply is not None]


def asked(
    nodes: Sequence[int], reference: State, grid: InMemoryGrid | None = None
) -> list[Message]:
    """Return train messages to the nodes, numbered if a grid is given."""
    content = RecordDict({"arrays": to_record(reference), "config": ConfigRecord()})
    messages = [
        Message(content=content, message_type=MessageType.TRAIN, dst_node_id=node) for node in nodes
    ]
    if grid is not None:
        grid.push_messages(messages)
    return messages


def to_record(weights: State) -> ArrayRecord:
    """Return weights as an ArrayRecord, order and dtypes kept."""
    return ArrayRecord({name: _array(array) for name, array in weights.items()})


def _array(array: NDArray[Any]) -> Any:
    from flwr.app import Array

    return Array(np.asarray(array))


def train_reply(
    message: Message, weights: State, num_examples: Any = 10, **metrics: float
) -> Message:
    """Return a well-formed reply to a train message."""
    values = {"num-examples": num_examples, "train_loss": 0.5, **metrics}
    content = RecordDict({"arrays": to_record(weights), "metrics": MetricRecord(values)})
    return Message(content, reply_to=message)


def error_reply(message: Message, reason: str = "client crashed") -> Message:
    """Return an error reply."""
    return Message(Error(code=2, reason=reason), reply_to=message)


@dataclass
class NormInspector:
    """Describes an update by its norm in units of the cohort's median, and by its z-score."""

    calls: int = 0

    def describe(self, cohort: Cohort) -> DescriptorTable:
        """Return the columns `norm` and `first` (first weight), standardised by the median."""
        self.calls += 1
        norms = [update_norms(c.load(), cohort.reference).parameters for c in cohort.clients]
        first = [float(next(iter(c.load().values())).ravel()[0]) for c in cohort.clients]
        raw = np.array([norms, first], dtype=np.float64).T
        centre = np.median(raw, axis=0)
        return DescriptorTable(("norm", "first"), raw, (raw - centre) / (np.abs(centre) + 1e-12))


@dataclass
class NormDetector:
    """Log-odds that grow with the norm: 0 at twice the cohort's median."""

    name: str = "norm"
    gain: float = 10.0

    def score(self, table: DescriptorTable) -> NDArray[np.float64]:
        """Return `gain · (norm / median − 2)`."""
        return self.gain * (table.column("norm") - 1.0)

    def contributions(self, table: DescriptorTable) -> NDArray[np.float64]:
        """Return the standardised columns themselves."""
        return table.standardised


@dataclass
class ScriptedDetector:
    """Scores that a test has written down, by position in the cohort."""

    scores: Sequence[float]
    name: str = "scripted"

    def score(self, table: DescriptorTable) -> NDArray[np.float64]:
        """Return the scripted scores."""
        return np.asarray(self.scores, dtype=np.float64)

    def contributions(self, table: DescriptorTable) -> NDArray[np.float64]:
        """Return the standardised columns themselves."""
        return table.standardised


def run_round(
    strategy: Strategy,
    server_round: int,
    reference: State,
    grid: InMemoryGrid,
    answer: Callable[[list[Message]], Iterable[Message]],
) -> tuple[Weights | None, MetricRecord | None]:
    """Configure, answer and aggregate one training round."""
    messages = list(
        strategy.configure_train(server_round, to_record(reference), ConfigRecord(), grid)
    )
    grid.push_messages(messages)
    arrays, metrics = strategy.aggregate_train(server_round, answer(messages))
    return None if arrays is None else from_record(arrays), metrics


def from_record(arrays: ArrayRecord) -> Weights:
    """Return an ArrayRecord as plain arrays."""
    return {name: array.numpy() for name, array in arrays.items()}


def assert_same(left: Mapping[str, NDArray[Any]], right: Mapping[str, NDArray[Any]]) -> None:
    """Assert bit-wise equality, order of names included."""
    assert list(left) == list(right)
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
