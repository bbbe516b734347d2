"""The final model of a run at work: do scanners of inputs find the trigger among clean ones?

The simulation knows what the defender does not: which test inputs carry the trigger. So it can say
of a scanner how many it finds and how often it cries wolf.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fl_shield.data.task import model_inputs
from fl_shield.metrics.detection import auroc
from fl_shield.scanning.protocol import Held, Samples
from fl_shield.scanning.registry import build_scanner
from fl_shield.simulations.federation import Federation, derived_seed
from fl_shield.simulations.final_models import InputFinding
from fl_shield.triggers.untouched import Untouched

INPUTS = 64
"""Clean inputs, and as many triggered ones, that are shown to the scanners."""


def judge_inputs(
    federation: Federation,
    held: Held,
    scanners: Sequence[str],
    false_alarms: float,
    round_number: int,
) -> tuple[InputFinding, ...]:
    """Return how each scanner tells triggered test inputs of a model from clean ones.

    Args:
        federation: The federation that the model is from.
        held: What the defender holds, the model among it.
        scanners: Names of scanners of the level `sample`.
        false_alarms: Share of clean inputs that may be suspected.
        round_number: The round that the model is from, for triggers that are optimised against it.

    Raises:
        ConfigurationError: if a scanner lacks something, or there are too few clean samples.
    """
    if held.model is None or not scanners:
        return ()
    clean, triggered = drawn_inputs(federation, held.model, round_number)
    truth = [False] * len(clean) + [True] * len(triggered)
    shown = Samples(torch.cat([clean, triggered]))
    findings = []
    for name in scanners:
        scanner = build_scanner(name, false_alarms=false_alarms).fit(held)
        scores = scanner.score(shown)
        flags = scores > scanner.threshold
        findings.append(
            InputFinding(
                scanner=name,
                threshold=float(scanner.threshold),
                clean=len(clean),
                triggered=len(triggered),
                false_alarms=float(np.mean(flags[: len(clean)])),
                found=float(np.mean(flags[len(clean) :])) if len(triggered) else None,
                auroc=auroc(scores.tolist(), truth),
            )
        )
    return tuple(findings)


def drawn_inputs(
    federation: Federation, model: nn.Module, round_number: int, count: int = INPUTS
) -> tuple[Tensor, Tensor]:
    """Return clean and triggered inputs of different test samples, in the form the model takes.

    Args:
        federation: The federation, whose attack they are triggered with.
        model: What an optimised trigger is optimised against.
        round_number: The round that the model is from.
        count: Inputs of each kind; fewer where the test set, or the attack's victims in it, are
            fewer, and no triggered ones where the attack has no trigger.
    """
    test = federation.task.test
    generator = torch.Generator().manual_seed(derived_seed(federation.settings.seed, 9))
    order = torch.randperm(len(test), generator=generator)
    count = min(count, -(-len(test) // 2))
    clean, rest = test.take(order[:count]), test.take(order[count:])
    attack = federation.attack_against(model, round_number)
    victims = attack.goal.victims(rest.labels, attack.target_class).nonzero().flatten()[:count]
    if isinstance(attack.trigger, Untouched):
        victims = victims[:0]
    others = model_inputs(rest.take(victims).inputs)
    return model_inputs(clean.inputs), attack.trigger.apply(others, generator)
