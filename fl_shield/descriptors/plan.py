"""The plan of a reading: what has to be looked at for the descriptors that a detector reads.

A descriptor's name says where it is read, `name@scale/view`. What no wanted descriptor needs is not
read: forward passes are nearly all that an inspection costs, and each scale, view and kind of
candidate triggers has its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
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

    def without(self, patterns: Collection[str]) -> Plan:
        """Return the plan without the places whose descriptors match, as in `*@10/*`, `*/jumbo`.

        >>> Plan().without(["*@1/*", "*@10/*", "*/noise", "*/jumbo"]).scales
        (0.25, 4.0)
        """

        def is_read(place: str) -> bool:
            return not any(fnmatchcase(f"descriptor@{place}", pattern) for pattern in patterns)

        def has_any(scale: str) -> bool:
            return any(is_read(f"{scale}/{view}") for view in self.views)

        scales = (RAW, *map("{:g}".format, self.scales))
        return Plan(
            scales=tuple(scale for scale in self.scales if has_any(f"{scale:g}")),
            views=tuple(
                view
                for view in self.views
                if view == CLEAN or any(is_read(f"{scale}/{view}") for scale in scales)
            ),
            asked=tuple(place for place in self.asked if is_read(place)),
        )

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
    pairs = [place.partition("/")[::2] for place in places]
    seen, whole = {view for _, view in pairs}, Plan()
    plain = {scale for scale, view in pairs if view in whole.views}
    return Plan(
        scales=tuple(scale for scale in whole.scales if f"{scale:g}" in plain),
        views=tuple(view for view in whole.views if view == CLEAN or view in seen),
        asked=tuple(place for place in whole.asked if place in places),
    )
