"""The arms of a comparison: the same federation with and without attack and defence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """One run of a comparison.

    Attributes:
        name: Name of the arm, and of its folder.
        attacked: Whether the attackers attack.
        defended: Whether the defence stands in front of the strategy.
        title: What a person calls it.
    """

    name: str
    attacked: bool
    defended: bool
    title: str


ARMS = {
    arm.name: arm
    for arm in (
        Arm("clean", attacked=False, defended=False, title="no attack"),
        Arm("clean_defended", attacked=False, defended=True, title="no attack, defended"),
        Arm("undefended", attacked=True, defended=False, title="attack, no defence"),
        Arm("defended", attacked=True, defended=True, title="attack, defended"),
    )
}
"""All arms by name."""


def arm_of(*, attacked: bool, defended: bool) -> Arm:
    """Return the arm with this attack and defence.

    >>> arm_of(attacked=True, defended=False).name
    'undefended'
    """
    return next(
        arm for arm in ARMS.values() if (arm.attacked, arm.defended) == (attacked, defended)
    )
