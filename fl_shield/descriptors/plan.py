"""The plan of a reading: what has to be looked at for the descriptors that a detector reads.

A descriptor's name says where it is read, `name@scale/view`. What no wanted descriptor needs is not
read: forward passes are nearly all that an inspection costs, and each scale, view and kind of
candidate triggers has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from fl_shield.activations.extrapolation import RAW, SCALES
from fl_shield.descriptors.comparison import ASKED_AT
from fl_shield.probes.views import CLEAN, NOISE

EVERYWHERE = tuple(f"{scale}/{kind}" for kind, scales in ASKED_AT.items() for scale in scales)


@dataclass(frozen=True)
class Plan:
    """What is read of every client, besides its own weights on the clean probes.

    Attributes:
        scales: Scales at which the views are read.
        views: Views of the probes, the clean one among them.
        asked: Places, `scale/kind`, at which clients are asked about candidate triggers, and texts
            are read with the tokens inserted that an update moved most.
    """

    scales: tuple[float, ...] = SCALES
    views: tuple[str, ...] = (CLEAN, NOISE)
    asked: tuple[str, ...] = EVERYWHERE

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of candidates that are asked about anywhere."""
        return tuple(kind for kind in ASKED_AT if any(p.endswith(f"/{kind}") for p in self.asked))

    def kinds_at(self, scale: str) -> tuple[str, ...]:
        """Return the kinds that are asked about at a scale, `raw` or a number as text."""
        return tuple(kind for kind in ASKED_AT if f"{scale}/{kind}" in self.asked)

    def only(self, is_read: Callable[[str], bool]) -> Plan:
        """Return the plan with the places, `scale/view`, that are read; the clean view stays."""
        names = (RAW, *map("{:g}".format, self.scales))
        plain = [
            (scale, view) for scale in names for view in self.views if is_read(f"{scale}/{view}")
        ]
        scales, views = {scale for scale, _ in plain}, {CLEAN, *(view for _, view in plain)}
        return Plan(
            scales=tuple(scale for scale in self.scales if f"{scale:g}" in scales),
            views=tuple(view for view in self.views if view in views),
            asked=tuple(place for place in self.asked if is_read(place)),
        )

    def without(self, patterns: Collection[str]) -> Plan:
        """Return the plan without the places whose descriptors match, as in `*@10/*`, `*/jumbo`.

        >>> Plan().without(["*@1/*", "*@10/*", "*/noise", "*/jumbo"]).scales
        (0.25, 4.0)
        """
        return self.only(lambda place: not matches(f"descriptor@{place}", patterns))

    def stops(self) -> list[float]:
        """Return all scales, besides the client's own weights, at which anything is read."""
        further = {float(p.split("/")[0]) for p in self.asked if not p.startswith(f"{RAW}/")}
        return sorted(further | set(self.scales))


def plan_of(columns: Iterable[str] | None) -> Plan:
    """Return what has to be read for these descriptors, for all there are if None.

    Columns that no plan knows ask for nothing.

    >>> plan_of(["log_norm", "turn@raw/clean", "peer@4/noise"])
    Plan(scales=(4.0,), views=('clean', 'noise'), asked=())
    """
    if columns is None:
        return Plan()
    places = {name.partition("@")[2] for name in columns if "@" in name}
    return Plan().only(places.__contains__)


def matches(name: str, patterns: Collection[str]) -> bool:
    """Return whether a column is meant by one of the patterns, as in `*@10/*` or `*/jumbo`."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
