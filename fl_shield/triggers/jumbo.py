"""The Jumbo distribution: triggers drawn at random, so that a detector learns no single one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from fl_shield.data.task import Task, TaskSpec
from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.triggers.box_pattern import BoxPattern, Noise
from fl_shield.triggers.protocol import Trigger
from fl_shield.triggers.token_insertion import TokenInsertion

BASE_SIDE = 32
"""Box sizes are pixels of images of about this side (28 and 32 in the paper); larger ones scale."""


@dataclass(frozen=True, kw_only=True)
class JumboDistribution:
    """Random triggers for images and texts (Xu et al., MNTD, S&P 2021, section V-B; MBDS eq. 4).

    Images: a box of random size, place, opacity and pattern, or faint noise over the whole image.
    Texts: one or two random words at random places.

    Attributes:
        sizes: Sides of the boxes, in pixels of a 32-pixel image; those above half of a smaller
            image are left out. None at all where only the whole image is to be drawn.
        whole_image: Whether noise over the whole image is among the draws.
        box_opacity: Range of a box's opacity; draws above 0.5 become opaque.
        whole_opacity: Range of the opacity over the whole image.
        max_words: Most words of a text trigger.
        max_position: Most tokens of the text in front of a word.

    Raises:
        ConfigurationError: if nothing could be drawn.
    """

    sizes: tuple[int, ...] = (2, 3, 4, 5)
    whole_image: bool = True
    box_opacity: tuple[float, float] = (0.2, 0.6)
    whole_opacity: tuple[float, float] = (0.05, 0.2)
    max_words: int = 2
    max_position: int = 9

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("sizes", "box_opacity", "whole_opacity"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        problems = []
        if min(self.sizes, default=int(self.whole_image)) < 1:
            problems.append(expected("jumbo.sizes", "one or more numbers of pixels", self.sizes))
        for name in ("box_opacity", "whole_opacity"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= 1:
                problems.append(expected(f"jumbo.{name}", "a range inside (0, 1]", bounds))
        if self.max_words < 1:
            problems.append(expected("jumbo.max_words", "1 or more", self.max_words))
        if self.max_position < 0:
            problems.append(expected("jumbo.max_position", "0 or more", self.max_position))
        raise_all(problems)

    def sample(
        self, generator: torch.Generator, spec: TaskSpec, reserved: Collection[int] = ()
    ) -> Trigger:
        """Return one draw, to be bound to a task of this `spec`.

        Args:
            generator: Source of chance; the same state gives the same trigger.
            spec: Kind and shape of the inputs.
            reserved: For texts, token ids that are no words (padding is never drawn anyway).
        """
        if spec.modality == "image":
            return self._sample_image(generator, spec)
        return self._sample_text(generator, spec, reserved)

    def _sample_image(self, generator: torch.Generator, spec: TaskSpec) -> BoxPattern:
        channels, height, width = spec.input_shape
        side = min(height, width)
        factor = max(1, round(side / BASE_SIDE))
        boxes = [size * factor for size in self.sizes if size * factor <= side // 2]
        if self.sizes and not boxes:
            boxes = [1]
        choice = _integer(generator, len(boxes) + self.whole_image)
        seed = _integer(generator, 2**31)
        noise: Noise = "binary" if channels == 1 else "colour"
        if choice == len(boxes):
            opacity = _uniform(generator, *self.whole_opacity)
            return BoxPattern(size=None, opacity=opacity, noise=noise, seed=seed)
        size = boxes[choice]
        opacity = _uniform(generator, *self.box_opacity)
        return BoxPattern(
            size=size,
            top=_integer(generator, height - size + 1),
            left=_integer(generator, width - size + 1),
            opacity=1.0 if opacity > 0.5 else opacity,
            noise=noise,
            seed=seed,
        )

    def _sample_text(
        self, generator: torch.Generator, spec: TaskSpec, reserved: Collection[int]
    ) -> TokenInsertion:
        forbidden = {spec.pad_id, *reserved}
        words = [token for token in range(spec.vocab_size) if token not in forbidden]
        count = 1 + _integer(generator, self.max_words)
        pieces = tuple((words[_integer(generator, len(words))],) for _ in range(count))
        positions = tuple(_integer(generator, self.max_position + 1) for _ in range(count))
        return TokenInsertion(
            pieces=pieces, positions=positions, pad_id=spec.pad_id, legend="random words"
        )


@dataclass(frozen=True, kw_only=True)
class JumboTrigger:
    """One draw of the Jumbo distribution, for images and texts alike.

    Attributes:
        seed: Which draw. Among them are very faint ones: look at the attack success rate without
            defence before a seed proves anything.
        distribution: What to draw from.
    """

    modality: ClassVar[None] = None

    seed: int = 0
    distribution: JumboDistribution = field(default_factory=JumboDistribution)

    def __str__(self) -> str:
        return f"Jumbo draw {self.seed}"

    def bind(self, task: Task) -> Trigger:
        """Return the drawn trigger, ready for the inputs of `task`.

        Raises:
            ConfigurationError: if it does not fit into them.
        """
        generator = torch.Generator().manual_seed(self.seed)
        reserved = [] if task.tokenizer is None else task.tokenizer.all_special_ids
        return self.distribution.sample(generator, task.spec, reserved).bind(task)

    def apply(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Refuse: nothing is drawn before the trigger is bound to a task.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            f"The trigger {str(self)!r} is not bound to a task yet. Call trigger.bind(task) and "
            "apply what it returns."
        )


def _integer(generator: torch.Generator, limit: int) -> int:
    """Return a uniform integer from 0 to `limit - 1`."""
    return int(torch.randint(limit, (), generator=generator))


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
