"""The plan of a reading: what has to be looked at for the descriptors that a detector reads.

A descriptor's name says where it is read, `name@scale/view`. What no wanted descriptor needs is not
read: forward passes are nearly all that an inspection costs, and each scale, view and kind of
candidate triggers has its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fl_shield.activations.extrapolation import SCALES
from fl_shield.descriptors.comparison import GUIDED, GUIDED_SCALE, KINDS, place_of
from fl_shield.probes.views import CLEAN, NOISE


@dataclass(frozen=True)
class Plan:
    """What is read of every client, besides its own weights on the clean probes.

    Attributes:
        scales: Extrapolation scales.
        views: Views of the probes, the clean one among them.
        kinds: Kinds of candidate triggers.
        guided: Whether texts with the tokens inserted that an update moved most are read.
    """

    scales: tuple[float, ...] = SCALES
    views: tuple[str, ...] = (CLEAN, NOISE)
    kinds: tuple[str, ...] = KINDS
    guided: bool = True


def plan_of(columns: Iterable[str] | None) -> Plan:
    """Return what has to be read for these descriptors, for all there are if None.

    Columns that no plan knows ask for nothing.

    >>> plan_of(["log_norm", "turn@raw/clean", "peer@4/noise"])
    Plan(scales=(4.0,), views=('clean', 'noise'), kinds=(), guided=False)
    """
    if columns is None:
        return Plan()
    places = {name.partition("@")[2] for name in columns if "@" in name}
    pairs = [place.partition("/")[::2] for place in places]
    seen, whole = {view for _, view in pairs}, Plan()
    plain = {scale for scale, view in pairs if view in whole.views}
    return Plan(
        scales=tuple(scale for scale in whole.scales if f"{scale:g}" in plain),
        views=tuple(view for view in whole.views if view == CLEAN or view in seen),
        kinds=tuple(kind for kind in whole.kinds if place_of(kind) in places),
        guided=f"{GUIDED_SCALE:g}/{GUIDED}" in places,
    )
