"""From inputs to descriptor rows, each held against the same few clean samples."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fl_shield.errors import ConfigurationError, expected
from fl_shield.scanning.parts import Parts, parts_for
from fl_shield.scanning.parts_of_images import Box
from fl_shield.scanning.protocol import Held, require_inputs
from fl_shield.scanning.reading import ModelReader, Reading
from fl_shield.scanning.sample_descriptors import Background, describe_itself, describe_view

PARTNERS = 16
"""Clean partners of an input; as many forward passes for each part of it that is tried. With half
of them, what an input scored depended on which were drawn."""

MIN_CLEAN = 4


class SampleDescriber:
    """Describes inputs of a deployed model.

    Partners are clean samples that the model gives another class than the input, where there are
    two such or more: of those that it gives the same class, nothing can be learned.

    Args:
        held: The model, and the clean samples to hold inputs against.
        scanner: Name of the scanner, for messages.

    Raises:
        ConfigurationError: if there is no model, or fewer than `MIN_CLEAN` clean samples.
        ModelError: if the model has no recognisable penultimate layer.
    """

    def __init__(self, held: Held, scanner: str) -> None:
        self._clean = require_inputs(held, scanner)
        if len(self._clean) < MIN_CLEAN:
            raise ConfigurationError(
                expected("held.clean", f"at least {MIN_CLEAN} samples", len(self._clean))
            )
        self._reader = ModelReader.of(held, scanner)
        self._background = Background.of(self._reader.read(self._clean))
        self._parts: Parts = parts_for(held.spec, held.word_tokens)
        self._seed = held.seed
        self.names: tuple[str, ...] = tuple(sorted(self._describe(self._clean[0], 0)))

    def reference(self) -> NDArray[np.float64]:
        """Return the rows of the clean samples, each held against the others."""
        return self._rows([self._describe(one, row) for row, one in enumerate(self._clean)])

    def describe(self, inputs: Tensor) -> NDArray[np.float64]:
        """Return the rows of inputs, `(samples, descriptors)`, in the order of `names`."""
        return self._rows([self._describe(one, None) for one in inputs])

    def _rows(self, found: list[dict[str, float]]) -> NDArray[np.float64]:
        rows = [[one.get(name, 0.0) for name in self.names] for one in found]
        return np.asarray(rows, dtype=np.float64).reshape(len(found), len(self.names))

    def _describe(self, one: Tensor, left_out: int | None) -> dict[str, float]:
        background = self._background
        if left_out is not None:
            background = background.without(left_out)
        own = self._reader.read(one[None])
        found = describe_itself(own, background)
        chosen = self._choose(int(own.predicted[0]), left_out)
        partners, read = self._clean[chosen], self._read_clean(chosen)
        generator = torch.Generator().manual_seed(self._seed)
        mixed = self._reader.read(self._parts.mix(one, partners, generator))
        found |= describe_view("mix", mixed, own, read, background)
        for name, seen in self._read_all(self._parts.bands(one, partners)).items():
            found |= describe_view(name, seen, own, read, background)
        box, seen, spread = self._best(one, own, self._parts.coarse(one), partners)
        found |= describe_view("coarse", seen, own, read, background)
        found["spread@coarse"] = spread
        box, seen, spread = self._best(one, own, self._parts.fine(one, box), partners)
        found |= describe_view("fine", seen, own, read, background)
        found["spread@fine"] = spread
        erased = self._reader.read(self._parts.erase(one, box, partners))
        return found | describe_view("erased", erased, own, read, background)

    def _best(
        self, one: Tensor, own: Reading, boxes: list[Box], partners: Tensor
    ) -> tuple[Box, Reading, float]:
        """Return the part that takes most partners to the input's class, and what it makes of them.

        The last value is how far the part is above the mean one.
        """
        pasted = torch.cat([self._parts.paste(one, box, partners) for box in boxes])
        seen = self._reader.read(pasted)
        count = len(partners)
        kept = seen.probabilities[:, own.predicted[0]].reshape(-1, count).mean(dim=1)  # (parts,)
        best = int(kept.argmax())
        rows = slice(best * count, (best + 1) * count)
        reading = Reading(seen.logits[rows], seen.activations[rows])
        return boxes[best], reading, float(kept[best] - kept.mean())

    def _choose(self, predicted: int, left_out: int | None) -> Tensor:
        clean = self._background.clean.predicted
        others = [row for row in range(len(clean)) if row != left_out]
        unlike = [row for row in others if int(clean[row]) != predicted]
        pool = unlike if len(unlike) >= 2 else others
        order = np.random.default_rng(self._seed).permutation(pool)[:PARTNERS]
        return torch.from_numpy(order)

    def _read_clean(self, rows: Tensor) -> Reading:
        clean = self._background.clean
        return Reading(clean.logits[rows], clean.activations[rows])

    def _read_all(self, views: dict[str, Tensor]) -> dict[str, Reading]:
        """Return readings by name, in one pass."""
        if not views:
            return {}
        seen = self._reader.read(torch.cat(list(views.values())))
        found, first = {}, 0
        for name, view in views.items():
            rows = slice(first, first + len(view))
            found[name] = Reading(seen.logits[rows], seen.activations[rows])
            first += len(view)
        return found
