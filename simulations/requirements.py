"""What a defence needs that only the whole run can tell: clients, participation, rounds.

A defence that cannot work in a run says so before anything trains. What its own settings and the
server's samples tell, a strategy checks itself when it is built. A strategy class can also declare
`needs_full_participation = True` or `needs_odd_cohort = True`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object

from fl_shield.simulations.settings import Settings


def unmet(settings: Settings) -> list[str]:
    """Return a sentence for each thing that the run's strategy or defence needs and lacks.

    Krum asks for n ≥ 2f + 3 updates a round and Bulyan for n ≥ 4f + 3, with f malicious ones
    (Blanchard et al., 2017, proposition 4.2; El Mhamdi et al., 2018, section 4). FLDetector judges
    nobody before its window of rounds is full (Zhang et al., 2022, section 4). A robust learning
    rate turns every parameter back when more signs have to agree than there are updates.
    """
    config = settings.config
    updates = max(1, round(settings.num_clients * float(config["fraction_train"])))
    strategy, defence = config["strategy"], config["defence"]
    problems = []
    name = _class(strategy)
    for classes, factor in ((("Krum", "MultiKrum"), 2), (("Bulyan",), 4)):
        tolerated = strategy.get("num_malicious_nodes", 0)
        if name in classes and updates < factor * tolerated + 3:
            problems.append(
                f"{name} needs at least {factor * tolerated + 3} updates a round to withstand "
                f"strategy.num_malicious_nodes={tolerated}, and this run has {updates}. Lower that "
                "number, or raise num_clients or fraction_train."
            )
    if not any(arm.defended for arm in settings.arms):
        return problems
    name = _class(defence)
    window = defence.get("window", 0)
    if name == "FLDetector" and settings.rounds <= window:
        problems.append(
            f"FLDetector judges nobody in its first {window} rounds, and this run has "
            f"{settings.rounds}. Raise rounds, or lower defence.window."
        )
    if name == "RobustLearningRate" and defence.get("threshold", 0) > updates:
        problems.append(
            f"The robust learning rate asks for {defence['threshold']} signs that agree, and this "
            f"run has {updates} updates a round. Lower defence.threshold."
        )
    kind = get_object(str(defence["_target_"]))
    if getattr(kind, "needs_full_participation", False) and updates < settings.num_clients:
        problems.append(
            f"{name} needs every client in every round, and this run samples {updates} of "
            f"{settings.num_clients}. Set fraction_train=1."
        )
    if getattr(kind, "needs_odd_cohort", False) and updates % 2 == 0:
        problems.append(
            f"{name} needs an odd number of updates a round, and this run has {updates}. Change "
            "num_clients or fraction_train."
        )
    return problems


def _class(node: Mapping[str, Any]) -> str:
    return str(node["_target_"]).rpartition(".")[2]
