"""Visibility: a shield judges single updates, and refuses to stand where it cannot see them.

Under secure aggregation (SecAgg, SecAgg+) the server learns only the sum of the updates. A shield
in front of it would either fail or, worse, pass everything and look as if it protected.
"""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import Message

from fl_shield.errors import ConfigurationError

SECURE_AGGREGATION = ("secagg", "secure_aggregation", "secure-aggregation")
"""What the records of secure-aggregation protocols are called; Flower's are `secaggplus_…`."""


def refuse_hidden_updates(where: str) -> None:
    """Refuse, saying why and what to do.

    Raises:
        ConfigurationError: always.
    """
    raise ConfigurationError(
        f"MetaShield cannot work in {where}: under secure aggregation the server sees only the sum "
        "of the updates, and a backdoor is found by looking at each one. Run the Message API "
        "(strategy.start) without secure aggregation, for example with differential privacy "
        "instead, or take the shield away."
    )


def check_visible(messages: Iterable[Message]) -> None:
    """Check that the messages of a round do not ask for secure aggregation.

    Raises:
        ConfigurationError: if one carries a record of such a protocol.
    """
    for message in messages:
        for name in message.content:
            if any(mark in str(name).lower() for mark in SECURE_AGGREGATION):
                refuse_hidden_updates(f"a round with the record {name!r}")
