"""Hostile replies: what a client can do to a round, each as a function from an honest reply.

`HOSTILE` replies must be rejected, `ODD` ones are harmless or merely unusual and must be survived.
`RoundScript`s are mixtures of them, drawn by hypothesis or by a seeded generator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from tests.strategies._rounds import Weights, error_reply, global_weights, to_record, train_reply

Answer = Callable[[Message, Weights], Message]
"""What a client makes of the message it got and the weights that it trained honestly."""

W = "0.weight"
SHAPE = global_weights()[W].shape


def changed(**arrays: Any) -> Answer:
    """Return an answer with some arrays replaced; None leaves one out."""

    def answer(message: Message, weights: Weights) -> Message:
        merged: dict[str, Any] = {**weights, **arrays}
        return train_reply(message, {k: v for k, v in merged.items() if v is not None})

    return answer


def filled(value: float, dtype: Any = np.float32) -> Answer:
    """Return an answer whose first array holds one value."""
    return changed(**{W: np.full(SHAPE, value, dtype=dtype)})


def claiming(value: Any) -> Answer:
    """Return an honest answer with another number of examples."""
    return lambda message, weights: train_reply(message, weights, num_examples=value)


def measuring(**metrics: Any) -> Answer:
    """Return an honest answer with more metrics."""
    return lambda message, weights: train_reply(message, weights, **metrics)


def content(*records: tuple[str, Any]) -> Answer:
    """Return an answer that holds just these records."""
    return lambda message, _weights: Message(RecordDict(dict(records)), reply_to=message)


def raw(data: Callable[[Array], bytes], **said: Any) -> Answer:
    """Return an answer whose first array has other bytes than it says, or says other things."""

    def answer(message: Message, weights: Weights) -> Message:
        good = Array(weights[W])
        bad = Array(
            said.get("dtype", good.dtype),
            said.get("shape", good.shape),
            said.get("stype", good.stype),
            data(good),
        )
        arrays = ArrayRecord({**to_record(weights), W: bad})
        metrics = MetricRecord({"num-examples": 10, "train_loss": 0.5})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    return answer


def reordered(message: Message, weights: Weights) -> Message:
    """Return the honest answer with its arrays in another order."""
    return train_reply(message, dict(reversed(weights.items())))


def retyped(dtype: str, name: str | None = None) -> Answer:
    """Return the honest answer with its floating arrays (or one array) in another dtype."""

    def answer(message: Message, weights: Weights) -> Message:
        other = {
            k: a.astype(dtype) if k == name or (name is None and a.dtype.kind == "f") else a
            for k, a in weights.items()
        }
        return train_reply(message, other)

    return answer


def scaled(factor: float) -> Answer:
    """Return the honest answer with every floating array multiplied."""

    def answer(message: Message, weights: Weights) -> Message:
        other = {
            k: a * a.dtype.type(factor) if a.dtype.kind == "f" else a for k, a in weights.items()
        }
        return train_reply(message, other)

    return answer


def renamed(message: Message, weights: Weights) -> Message:
    """Return the honest answer with one array under another name."""
    return train_reply(message, {("a" if k == W else k): a for k, a in weights.items()})


def with_configuration(message: Message, weights: Weights) -> Message:
    """Return the honest answer with a ConfigRecord beside it."""
    reply = train_reply(message, weights)
    reply.content["extra"] = ConfigRecord({"text": "x" * 1000})
    return reply


def _npy_header(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


HOSTILE: dict[str, Answer] = {
    "error reply": lambda message, _weights: error_reply(message),
    "huge error": lambda message, _weights: error_reply(message, "x" * 100_000),
    "missing array": changed(**{W: None}),
    "extra array": changed(extra=np.zeros(3, dtype=np.float32)),
    "renamed array": renamed,
    "name of markup": changed(**{"\x1b[31m<script>\n": np.zeros(1, dtype=np.float32)}),
    "wrong shape": changed(**{W: np.zeros((2, 2), dtype=np.float32)}),
    "transposed": changed(**{W: np.zeros(SHAPE[::-1], dtype=np.float32)}),
    "broadcastable shape": changed(**{W: np.zeros((1, 1), dtype=np.float32)}),
    "scalar": changed(**{W: np.asarray(0.0, dtype=np.float32)}),
    "empty array": changed(**{W: np.zeros((0,), dtype=np.float32)}),
    "NaN": filled(np.nan),
    "NaN in a buffer": changed(**{"1.running_var": np.full(3, np.nan, dtype=np.float32)}),
    "infinity": filled(np.inf),
    "1e30": filled(1e30),
    "1e308": filled(1e308, np.float64),
    "long double": filled(1.0, np.longdouble),
    "complex": filled(0.0, np.complex64),
    "text": changed(**{W: np.full(SHAPE, "x")}),
    "dates": changed(**{W: np.zeros(SHAPE, dtype="datetime64[s]")}),
    "records of numbers": changed(**{W: np.zeros(SHAPE, dtype=[("a", "f4")])}),
    "garbage bytes": raw(lambda _good: b"\x93NUMPY garbage"),
    "no bytes": raw(lambda _good: b""),
    "truncated bytes": raw(lambda good: good.data[: len(good.data) // 2]),
    "bytes too many": raw(lambda good: good.data + b"\x00" * 64),
    "a pickle": raw(lambda _good: b"\x80\x04cos\nsystem\n(S'true'\ntR."),
    "a pickled array": raw(
        lambda _good: _npy_header(b"{'descr': '|O', 'fortran_order': False, 'shape': (3, 4), }\n")
    ),
    "a terabyte promised": raw(
        lambda _good: _npy_header(
            b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }\n"
        )
    ),
    "negative shape": raw(
        lambda _good: _npy_header(
            b"{'descr': '<f4', 'fortran_order': False, 'shape': (-3, -4), }\n"
        )
    ),
    "code in the header": raw(lambda _good: _npy_header(b"__import__('os').abort()\n")),
    "another encoding": raw(lambda good: good.data, stype="pickle"),
    "no examples": claiming(0),
    "negative examples": claiming(-1000),
    "NaN examples": claiming(float("nan")),
    "infinite examples": claiming(float("inf")),
    "list of examples": claiming([10, 10]),
    "examples beyond floats": claiming(10**400),
    "nothing": content(),
    "no metrics": content(("arrays", ArrayRecord())),
    "two records of arrays": content(
        ("arrays", ArrayRecord()), ("more", ArrayRecord()), ("metrics", MetricRecord())
    ),
    "records renamed": content(("weights", ArrayRecord()), ("metrics", MetricRecord())),
    "extra metric": measuring(odd=1.0),
    "list metric": measuring(train_loss=[1.0, 2.0]),
    "a thousand metrics": measuring(**{f"m{i}": float(i) for i in range(1000)}),
}
"""Replies that no cohort of honest ones may contain; the keys are what the client does."""

ODD: dict[str, Answer] = {
    "reordered": reordered,
    "big endian": retyped(">f4"),
    "double precision": retyped("f8"),
    "half precision": retyped("f2"),
    "integers": retyped("i8"),
    "unsigned integers": retyped("u2"),
    "booleans": retyped("?"),
    "counter as float": retyped("f4", "1.num_batches_tracked"),
    "counter in half": retyped("f2", "1.num_batches_tracked"),
    "denormals": scaled(1e-41),
    "zero weights": scaled(0.0),
    "1e6 times": scaled(1e6),
    "negated": scaled(-1.0),
    "fortran order": lambda message, weights: train_reply(
        message, {k: np.asfortranarray(a) if a.ndim else a for k, a in weights.items()}
    ),
    "lying about dtype": raw(lambda good: good.data, dtype="float16"),
    "lying about shape": raw(lambda good: good.data, shape=(1,)),
    "one example": claiming(1),
    "part of an example": claiming(1e-300),
    "2**62 examples": claiming(2**62),
    "1e300 examples": claiming(1e300),
    "NaN loss": measuring(train_loss=float("nan")),
    "configuration": with_configuration,
    "negative variance": changed(**{"1.running_var": np.full(3, -1e6, dtype=np.float32)}),
    "unchanged": lambda message, _weights: train_reply(message, global_weights()),
}
"""Replies that may be admitted: they must harm nobody but, at most, the figures they report."""


def twice(message: Message, weights: Weights) -> list[Message]:
    """Return the honest answer and another one from the same node."""
    return [train_reply(message, weights), train_reply(message, weights, num_examples=99)]


def impostor(message: Message, weights: Weights, victim: int) -> Message:
    """Return the honest answer, as if another node had sent it."""
    reply = train_reply(message, weights)
    reply.metadata.__dict__["_src_node_id"] = victim
    return reply


def late(message: Message, weights: Weights) -> Message:
    """Return an answer to a message of an earlier round."""
    reply = train_reply(message, weights)
    reply.metadata.__dict__["_reply_to_message_id"] = "of-an-earlier-round"
    return reply


KINDS: Mapping[str, str] = {
    "honest": "sound",
    "sybil": "sound",
    "silent": "absent",
    "twice": "rejected",
    "late": "rejected",
    "impostor": "rejected",
    **dict.fromkeys(HOSTILE, "rejected"),
    **dict.fromkeys(ODD, "survived"),
}
"""Every behaviour, and what must become of its reply."""
