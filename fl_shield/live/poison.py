"""How a poisoned shadow is made: a Jumbo trigger on some of its samples, and a target class."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from fl_shield.data.task import Split, TaskSpec
from fl_shield.triggers.jumbo import JumboDistribution
from fl_shield.triggers.unit_range import in_unit_range

POISONED = (0.2, 0.6)
"""Share of a poisoned shadow's samples that carry the trigger, uniform; as attackers are drawn."""


def modality_spec(inputs: Tensor, classes: int) -> TaskSpec | None:
    """Return what triggers need to know of samples; None where there is no trigger for them.

    Args:
        inputs: `(samples, …)` clean samples.
        classes: Number of classes.
    """
    shape = tuple(inputs.shape[1:])
    if inputs.is_floating_point():
        return TaskSpec("image", shape, classes) if len(shape) == 3 else None
    pad = int(inputs.flatten().mode().values)
    return TaskSpec("text", shape, classes, int(inputs.max()) + 1, pad)


def poisoned(split: Split, spec: TaskSpec, rng: np.random.Generator) -> Split:
    """Return samples of which some carry one random trigger and have one random class.

    Args:
        split: Clean samples in the form the model takes; left as they are.
        spec: Kind and shape of the samples.
        rng: Source of chance.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    trigger = JumboDistribution().sample(generator, spec)
    target = int(rng.integers(spec.num_classes))
    count = max(1, round(rng.uniform(*POISONED) * len(split)))
    chosen = torch.from_numpy(rng.permutation(len(split))[:count])
    inputs, labels = split.inputs.clone(), split.labels.clone()
    apply = partial(trigger.apply, generator=generator)
    if inputs.is_floating_point():
        inputs[chosen] = in_unit_range(inputs[chosen], apply, of=inputs)
    else:
        inputs[chosen] = apply(inputs[chosen])
    labels[chosen] = target
    return Split(inputs, labels)
