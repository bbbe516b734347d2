"""Contaminated data sets: what attackers train victims on, and defenders their shadow models.

The trigger's draw is `gen_jumbo_setting` of MBDS, Algorithm 1, line 3; `contaminate` is the rest of
its loop. Poisoned samples are added to the clean ones, which stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fl_shield.data.task import Split, Task, model_inputs
from fl_shield.errors import DataError, expected
from fl_shield.triggers.jumbo import JumboDistribution
from fl_shield.triggers.protocol import Trigger

POISON_SHARES = (0.05, 0.5)
"""Range of the share of samples that is poisoned (Xu et al., MNTD, section V-B)."""


@dataclass(frozen=True)
class Contamination:
    """One attack setting: `m`, `t` and `α` (in the trigger), `y_t` and `p` of Algorithm 1.

    Attributes:
        trigger: Bound to the task.
        target_class: Label of poisoned samples.
        share: Poisoned samples for each clean one.
    """

    trigger: Trigger
    target_class: int
    share: float


@dataclass(frozen=True)
class Contaminated:
    """A contaminated data set.

    Attributes:
        split: Clean samples, then poisoned ones; inputs in the form models take.
        poisoned: `(samples,)` bool.
        origin: `(samples,)` true labels.
    """

    split: Split
    poisoned: Tensor
    origin: Tensor


def draw_jumbo(
    task: Task, generator: torch.Generator, jumbo: JumboDistribution | None = None
) -> Contamination:
    """Return a random attack setting for a task (MBDS, Algorithm 1, line 3)."""
    jumbo = jumbo or JumboDistribution()
    trigger = jumbo.sample(generator, task.spec, special_tokens(task)).bind(task)
    return draw_setting(task, trigger, generator)


def draw_setting(task: Task, trigger: Trigger, generator: torch.Generator) -> Contamination:
    """Return an attack setting with this trigger, its target class and share drawn at random."""
    target = int(torch.randint(task.spec.num_classes, (), generator=generator))
    low, high = POISON_SHARES
    share = low + (high - low) * float(torch.rand((), generator=generator))
    return Contamination(trigger, target, share)


def contaminate(split: Split, setting: Contamination, generator: torch.Generator) -> Contaminated:
    """Return a data set and its poisoned copies (MBDS, Algorithm 1, lines 4 to 9).

    Args:
        split: Clean samples.
        setting: The attack.
        generator: Chooses the samples that are copied.

    Raises:
        DataError: if there is no sample.
    """
    if not len(split):
        raise DataError(expected("len(split)", "at least 1", 0))
    count = min(len(split), max(1, round(setting.share * len(split))))
    chosen = torch.randperm(len(split), generator=generator)[:count]
    clean = model_inputs(split.inputs)
    triggered = setting.trigger.apply(clean[chosen], generator)
    wanted = torch.full_like(split.labels[chosen], setting.target_class)
    return Contaminated(
        Split(torch.cat([clean, triggered]), torch.cat([split.labels, wanted])),
        torch.cat([torch.zeros(len(split)), torch.ones(count)]).bool(),
        torch.cat([split.labels, split.labels[chosen]]),
    )


def special_tokens(task: Task) -> tuple[int, ...]:
    """Return the token ids of a task that are no words; none for images."""
    return () if task.tokenizer is None else tuple(map(int, task.tokenizer.all_special_ids))


def words_of(task: Task) -> tuple[int, ...] | None:
    """Return the token ids of a task that are words; None for images."""
    if task.spec.modality == "image":
        return None
    others = {task.spec.pad_id, *special_tokens(task)}
    return tuple(token for token in range(task.spec.vocab_size) if token not in others)
