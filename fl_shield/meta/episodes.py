"""Rounds as padded batches of features, drawn so that every data set is heard equally."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fl_shield.detector.features import CHANNELS, FeatureSpec, features_of
from fl_shield.shadow.table import EpisodeTable


@dataclass(frozen=True)
class Batch:
    """Rounds side by side.

    Attributes:
        features: `(rounds, clients, features)`, zero where a client is padding.
        malicious: `(rounds, clients)` truth, 0 or 1.
        present: `(rounds, clients)` bool, False where a client is padding.
    """

    features: Tensor
    malicious: Tensor
    present: Tensor


class Episodes:
    """The rounds that a detector learns from.

    Args:
        tables: Training rounds, at least one.
        spec: Columns and units to read them with.
    """

    def __init__(self, tables: Sequence[EpisodeTable], spec: FeatureSpec) -> None:
        self._features = [torch.from_numpy(features_of(spec, t.names, t.raw)) for t in tables]
        self._malicious = [torch.from_numpy(t.malicious.astype(np.float32)) for t in tables]
        self._by_domain = _grouped([t.domain for t in tables])
        self._by_run = [_grouped_in(g, [t.run for t in tables]) for g in self._by_domain]

    def draw(self, rng: np.random.Generator, count: int) -> list[int]:
        """Return `count` rounds: a data set at random, then one of its rounds."""
        groups = [self._by_domain[int(rng.integers(len(self._by_domain)))] for _ in range(count)]
        return [int(rng.choice(group)) for group in groups]

    def draw_task(self, rng: np.random.Generator, count: int) -> tuple[list[int], list[int]]:
        """Return support and query rounds of one federation, up to `count` each, not the same.

        A federation of one round is its own support.
        """
        runs = self._by_run[int(rng.integers(len(self._by_run)))]
        rounds = rng.permutation(runs[int(rng.integers(len(runs)))]).tolist()
        half = max(len(rounds) // 2, 1)
        return rounds[:half][:count], (rounds[half:] or rounds)[:count]

    def batch(self, rounds: Sequence[int]) -> Batch:
        """Return the rounds of these indices, padded to the largest."""
        width = max(len(self._malicious[index]) for index in rounds)
        features = torch.zeros(len(rounds), width, self._features[rounds[0]].shape[1])
        malicious = torch.zeros(len(rounds), width)
        present = torch.zeros(len(rounds), width, dtype=torch.bool)
        for row, index in enumerate(rounds):
            size = len(self._malicious[index])
            features[row, :size] = self._features[index]
            malicious[row, :size] = self._malicious[index]
            present[row, :size] = True
        return Batch(features, malicious, present)


def hide_columns(features: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return features with a random share of the columns of each round hidden, as if not there."""
    columns = features.shape[2] // CHANNELS
    kept = torch.rand(len(features), 1, columns, generator=generator) >= share
    return features * kept.repeat(1, 1, CHANNELS)


def _grouped(keys: Sequence[str]) -> list[NDArray[np.int64]]:
    return _grouped_in(np.arange(len(keys)), keys)


def _grouped_in(indices: NDArray[np.int64], keys: Sequence[str]) -> list[NDArray[np.int64]]:
    groups: dict[str, list[int]] = {}
    for index in indices.tolist():
        groups.setdefault(keys[index], []).append(index)
    return [np.array(groups[key]) for key in sorted(groups)]
