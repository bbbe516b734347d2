"""A backdoor defence for federated learning with Flower.

`MetaShield` (in `fl_shield.strategies`) wraps any Flower strategy. Every round it runs each
client's update through a few clean samples that only the server holds, and a detector judges from
the activations which updates carry a backdoor; suspects are dropped or down-weighted before the
wrapped strategy aggregates.

    from fl_shield import ProbeSet
    from fl_shield.strategies import MetaShield

    strategy = MetaShield(FedAvg(), model, ProbeSet(inputs, labels))

This package itself knows nothing of Flower; names below load what they need when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fl_shield.cohort import ClientUpdate, Cohort
    from fl_shield.detector import Detector, RobustRule, default_detector
    from fl_shield.errors import FlShieldError
    from fl_shield.inspection import Inspector
    from fl_shield.judge.verdict import Decision, Verdict
    from fl_shield.probes.probe_set import ProbeSet
    from fl_shield.probes.synthetic import synthetic_images, synthetic_texts

_HOMES = {
    "ClientUpdate": "fl_shield.cohort",
    "Cohort": "fl_shield.cohort",
    "Decision": "fl_shield.judge.verdict",
    "Detector": "fl_shield.detector",
    "FlShieldError": "fl_shield.errors",
    "Inspector": "fl_shield.inspection",
    "ProbeSet": "fl_shield.probes.probe_set",
    "RobustRule": "fl_shield.detector",
    "Verdict": "fl_shield.judge.verdict",
    "default_detector": "fl_shield.detector",
    "synthetic_images": "fl_shield.probes.synthetic",
    "synthetic_texts": "fl_shield.probes.synthetic",
}

__all__ = [
    "ClientUpdate",
    "Cohort",
    "Decision",
    "Detector",
    "FlShieldError",
    "Inspector",
    "ProbeSet",
    "RobustRule",
    "Verdict",
    "default_detector",
    "synthetic_images",
    "synthetic_texts",
]


def __getattr__(name: str) -> object:
    """Return a public name, importing its module only now: torch takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fl_shield' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
