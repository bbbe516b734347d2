"""What meta-training tells the experiment tracker: a curve for each network, then the detector.

The command's own process tells it, from the networks' checkpoints: training may go on in others,
on other machines too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fl_shield.meta.checkpoint import read_losses
from fl_shield.simulations.federation import build
from fl_shield.tracking import Tracker


def start_tracker(config: DictConfig, out: Path) -> Tracker:
    """Return the tracker of a configuration, ready for the first network.

    Args:
        config: The configuration of the command; the tracker is told all of it.
        out: Folder of the detector; the tracker's files go there, and its runs have its name.

    Raises:
        ConfigurationError: if its settings do not fit, or it cannot work on this machine.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    tracker: Tracker = build(plain["tracking"], "tracking")
    tracker.start(out, out.name, plain)
    return tracker


def track_network(tracker: Tracker, index: int, checkpoint: Path) -> None:
    """Tell the losses of a trained network, a step a line, from its checkpoint.

    Raises:
        StateError: if the checkpoint is damaged.
    """
    losses = read_losses(checkpoint)
    tracker.start_arm(f"network-{index}")
    for step, loss in losses.items():
        tracker.log_round(step, {"loss": loss})
    tracker.finish_arm({"loss": losses[max(losses)] if losses else None})


def track_detector(tracker: Tracker, card: Mapping[str, Any]) -> None:
    """Tell what came of it: the card, and the figures on unseen data sets by name."""
    tracker.start_arm("detector")
    aurocs = {f"unseen_auroc/{domain}": area for domain, area in card["unseen_auroc"].items()}
    tracker.finish_arm({**aurocs, "card": dict(card)})
