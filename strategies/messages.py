"""Messages ↔ arrays and claims: the only file of the shield that knows Flower's record types.

Stock strategies stop the whole run on one odd reply: another record name, a metric that others do
not send, bytes that do not decode. Here a reply is opened with the expectation that anything in it
is hostile; what is not as it should be becomes a `Rejection`. Record names and the metric schema
are those of the majority of replies, since the first one may be the attacker's.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from numpy.lib import format as npy
from numpy.typing import NDArray

from fl_shield.canonical import canonical, canonical_dtype
from fl_shield.cohort import State
from fl_shield.intake import KINDS, Rejection, RejectionReason, as_float, quote

NPY_HEADER_BYTES = 4096
"""More than any header of a plain array takes."""


@dataclass
class Roster:
    """Who was asked this round, from the messages that the strategy sent.

    Attributes:
        nodes: Node ids that were asked.
        asked: Node id by the id of the message it was sent; Flower fills ids in when it sends.
    """

    messages: tuple[Message, ...] = ()
    nodes: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        """Read the recipients once; message ids are read when replies arrive."""
        self.nodes = frozenset(message.metadata.dst_node_id for message in self.messages)

    def asked(self) -> dict[str, int]:
        """Return node id by message id; empty where the messages carry no ids."""
        return {
            message.metadata.message_id: message.metadata.dst_node_id
            for message in self.messages
            if message.metadata.message_id
        }

    def sender(self, reply: Message) -> int:
        """Return whose reply this is; an error about a dead node comes from the SuperLink."""
        node = self.asked().get(reply.metadata.reply_to_message_id)
        return reply.metadata.src_node_id if node is None or not reply.has_error() else node

    def missing(self, replies: Iterable[Message]) -> list[int]:
        """Return the nodes that were asked and did not answer in their own name, sorted."""
        asked = self.asked()
        answered = {
            sender
            for reply in replies
            for sender in (self.sender(reply),)
            if asked.get(reply.metadata.reply_to_message_id, sender) == sender
        }
        return sorted(self.nodes - answered)


@dataclass(frozen=True)
class Reply:
    """A reply whose records have been found; nothing in them has been checked yet.

    Attributes:
        message: The message as it arrived.
        client_id: Node id of the sender.
        array_name: Name of its one ArrayRecord, None for evaluation replies.
        arrays: Its encoded arrays by name.
        metric_name: Name of its one MetricRecord.
        metrics: That record's values.
    """

    message: Message
    client_id: int
    array_name: str | None
    arrays: Mapping[str, Array]
    metric_name: str
    metrics: Mapping[str, Any]

    @property
    def names(self) -> Hashable:
        """Names of its records."""
        return self.array_name, self.metric_name

    @property
    def schema(self) -> Hashable:
        """Names of its metrics, each with the length of its list, None for a single number."""
        return frozenset(
            (key, len(value) if isinstance(value, list) else None)
            for key, value in self.metrics.items()
        )

    def decode(self, reference: State) -> dict[str, NDArray[np.generic]]:
        """Return the arrays in canonical form, in the order of the global model's.

        Raises:
            Exception: whatever hostile bytes cause.
        """
        return {
            name: canonical(decode(self.arrays[name]), base.dtype)
            for name, base in reference.items()
        }

    def forward(
        self, claim_key: str, claim: float, arrays: State | None, reference: State
    ) -> Message:
        """Return the message for the inner strategy; the one that arrived stays untouched.

        Args:
            claim_key: Metric that holds the number of examples.
            claim: Its value after capping.
            arrays: Replacement weights, None to pass the client's own on, in canonical form.
            reference: Global weights. Their order counts: clipping and Krum in Flower go by
                position, so a client must not get its way with another one.
        """
        records = RecordDict()
        if self.array_name is not None:
            records[self.array_name] = ArrayRecord(
                {
                    name: _canonical_array(self.arrays[name], base.dtype)
                    if arrays is None
                    else Array(np.asarray(arrays[name]))
                    for name, base in reference.items()
                }
            )
        metrics = dict(self.metrics)
        if float(metrics[claim_key]) > claim:
            metrics[claim_key] = claim
        records[self.metric_name] = MetricRecord(metrics)
        for name, config in self.message.content.config_records.items():
            records[name] = config
        forwarded = copy.copy(self.message)
        forwarded.content = records
        return forwarded


def reference_state(arrays: ArrayRecord) -> dict[str, NDArray[np.generic]]:
    """Return the server's own arrays, decoded."""
    return {name: array.numpy() for name, array in arrays.items()}


def decode(array: Array) -> NDArray[np.generic]:
    """Return a client's array, having read its header before giving it memory.

    Raises:
        ValueError: if the bytes are no plain array, or fewer or more than it needs.
        Exception: whatever else NumPy raises on hostile bytes.
    """
    shape, dtype, start = _read_header(array)
    if dtype.kind not in KINDS:
        raise ValueError(f"numbers of kind {dtype}")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != len(array.data) - start:
        raise ValueError(f"{len(array.data)} bytes cannot hold shape {shape} of {dtype}")
    return array.numpy()


def _read_header(array: Array) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape, dtype and where the numbers start, from the bytes: what is said beside may lie.

    Raises:
        ValueError: if the bytes are no plain array.
        Exception: whatever else NumPy raises on hostile bytes.
    """
    buffer = BytesIO(array.data)
    version = npy.read_magic(buffer)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"unknown array format {version}")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(buffer, max_header_size=NPY_HEADER_BYTES)
    return shape, dtype, buffer.tell()


def _canonical_array(array: Array, reference: np.dtype[Any]) -> Array:
    """Return an admitted client's array in canonical form, the same object if it has it already."""
    sent = _read_header(array)[1]
    if canonical_dtype(sent, reference) == sent:
        return array
    return Array(canonical(decode(array), reference))


def open_replies(
    replies: Iterable[Message], roster: Roster, *, with_arrays: bool
) -> tuple[list[Reply], list[Rejection]]:
    """Return the replies with one answer a node and the records it should have, and the rest.

    Args:
        replies: Messages in the order they arrived.
        roster: Who was asked; an empty roster lets any sender pass.
        with_arrays: True for training, False for evaluation.
    """
    opened: list[Reply] = []
    rejected: list[Rejection] = []
    messages = list(replies)
    asked = roster.asked()
    faults = [_check_sender(m, roster.sender(m), roster, asked) for m in messages]
    # Only answers in a node's own name count as its answers: neither an error that is reported
    # twice nor somebody who pretends to be it may cost a node its place in the round.
    counts = Counter(
        m.metadata.src_node_id for m, fault in zip(messages, faults, strict=True) if fault is None
    )
    for message, sender_fault in zip(messages, faults, strict=True):
        client = roster.sender(message)
        fault = sender_fault or _check_count(counts[client])
        result: Reply | Rejection
        if fault is not None:
            result = Rejection(client, *fault)
        else:
            try:
                result = _open(message, client, with_arrays)
            except Exception as error:  # hostile content may fail in any way
                text = f"it cannot be read ({type(error).__name__}: {quote(error)})."
                result = Rejection(client, RejectionReason.UNREADABLE, text)
        if isinstance(result, Reply):
            opened.append(result)
        else:
            rejected.append(result)
    return opened, rejected


def keep_majority(replies: list[Reply]) -> tuple[list[Reply], list[Rejection]]:
    """Return the replies whose record names and metric schema are the majority's, and the rest."""
    named, rejected = _vote(
        replies,
        {reply.client_id: reply.names for reply in replies},
        RejectionReason.RECORDS,
        "its records are named unlike those of most replies.",
    )
    kept, others = _vote(
        named,
        {reply.client_id: reply.schema for reply in named},
        RejectionReason.METRICS,
        "its metrics are not the ones that most replies carry.",
    )
    return kept, rejected + others


def _vote(
    replies: list[Reply], ballots: Mapping[int, Hashable], reason: RejectionReason, detail: str
) -> tuple[list[Reply], list[Rejection]]:
    if not replies:
        return [], []
    counts = Counter(ballots.values())
    most = max(counts.values())
    # A tie is broken by the smallest node id, which no client chooses and no order changes.
    winner = next(b for c, b in sorted(ballots.items()) if counts[b] == most)
    kept = [reply for reply in replies if ballots[reply.client_id] == winner]
    others = [
        Rejection(r.client_id, reason, detail) for r in replies if ballots[r.client_id] != winner
    ]
    return kept, others


def _check_sender(
    message: Message, client: int, roster: Roster, asked: Mapping[str, int]
) -> tuple[RejectionReason, str] | None:
    if message.has_error():
        text = f"it reported error {message.error.code}: {quote(message.error.reason)}."
        return RejectionReason.ERROR_REPLY, text
    if roster.nodes and client not in roster.nodes:
        return RejectionReason.UNEXPECTED_SENDER, "it was not asked this round."
    answered = message.metadata.reply_to_message_id
    if asked and answered not in asked:
        return RejectionReason.LATE, "it answers a message that was not sent this round."
    if asked and asked[answered] != client:
        return RejectionReason.UNEXPECTED_SENDER, "it answers a message sent to another node."
    return None


def _check_count(count: int) -> tuple[RejectionReason, str] | None:
    if count > 1:
        return RejectionReason.DUPLICATE, f"it answered {count} times; no answer can be trusted."
    return None


def _open(message: Message, client: int, with_arrays: bool) -> Reply | Rejection:
    content = message.content
    arrays, metrics = content.array_records, content.metric_records
    if with_arrays and len(arrays) != 1:
        text = f"it carries {len(arrays)} ArrayRecords, not one."
        return Rejection(client, RejectionReason.RECORDS, text)
    if len(metrics) != 1:
        text = f"it carries {len(metrics)} MetricRecords, not one."
        return Rejection(client, RejectionReason.RECORDS, text)
    metric_name, values = next(iter(metrics.items()))
    for key, value in values.items():
        if not _is_numeric(value):
            text = f"its metric {quote(key)} is not a number that fits a float."
            return Rejection(client, RejectionReason.METRICS, text)
    array_name, record = next(iter(arrays.items())) if with_arrays else (None, {})
    return Reply(message, client, array_name, dict(record), metric_name, dict(values))


def _is_numeric(value: object) -> bool:
    """Return whether a metric can be averaged: integers too large for a float cannot."""
    values = value if isinstance(value, list) else [value]
    return all(
        isinstance(v, int | float) and not isinstance(v, bool) and as_float(v) is not None
        for v in values
    )
