"""Models of three sizes, and cohorts of any length whose clients' weights are made when asked for.

Weights are the reference plus noise: what a pass costs does not depend on what is learned. No
cohort is ever held; a client's weights exist while somebody looks at them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from torch import nn

from fl_shield.cohort import ClientUpdate, Cohort, State
from fl_shield.data.task import TaskSpec
from fl_shield.models.cifar_cnn import CifarCnn
from fl_shield.models.digits_cnn import DigitsCnn
from fl_shield.models.resnet18 import ResNet18
from fl_shield.models.state import state_arrays
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.simulations.composing import FOLDER
from fl_shield.training.local import LocalTraining

SHIFTS = 4093
"""Clients whose noise differs; a prime, so that they come round late."""

NOISE = 0.05
"""Size of an update over the mean size of the weights."""


@dataclass(frozen=True)
class Size:
    """A model of the benchmark.

    Attributes:
        title: What tables call it.
        build: Makes it.
        spec: The task that it is for.
        training: Name of the local training in `conf/training`.
    """

    title: str
    build: Callable[[TaskSpec], nn.Module]
    spec: TaskSpec
    training: str

    def model(self) -> nn.Module:
        """Return the model with the weights of seed 0."""
        torch.manual_seed(0)
        return self.build(self.spec).eval()


SIZES = {
    "small": Size(
        "digits CNN", lambda spec: DigitsCnn(spec, 32, 128), TaskSpec("image", (1, 8, 8), 10),
        "digits",
    ),
    "medium": Size("CIFAR CNN", CifarCnn, TaskSpec("image", (3, 32, 32), 10), "images"),
    "large": Size("ResNet-18", ResNet18, TaskSpec("image", (3, 32, 32), 10), "images"),
}  # fmt: skip
"""By name; each is the architecture that `conf/model` has for such images."""


def parameters_of(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def probe_set(spec: TaskSpec, samples: int) -> ProbeSet:
    """Return random images with labels that even out the classes."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(samples, *spec.input_shape, generator=generator)
    return ProbeSet(images, torch.arange(samples) % spec.num_classes)


def local_training(name: str) -> LocalTraining:
    """Return one epoch of a local training of `conf/training`."""
    settings: Any = OmegaConf.to_container(OmegaConf.load(FOLDER / "training" / f"{name}.yaml"))
    return LocalTraining(**{k: v for k, v in settings.items() if k != "_target_"} | {"epochs": 1})


@dataclass
class LazyCohort:
    """Makes cohorts of a model.

    Attributes:
        model: The model; its weights are the reference.
        seconds: Processor time that making clients' weights has taken so far.
    """

    model: nn.Module
    seconds: float = 0.0
    _reference: dict[str, NDArray[Any]] = field(init=False)
    _noise: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        """Draw as much noise as the largest parameter needs, for every client a bit further on."""
        self._reference = state_arrays(self.model)
        self._trainable = {name for name, _ in self.model.named_parameters()}
        longest = max(array.size for array in self._reference.values())
        rng = np.random.default_rng(0)
        self._noise = rng.standard_normal(longest + SHIFTS, dtype=np.float32)

    def of(self, clients: int) -> Cohort:
        """Return a cohort of as many clients."""

        def loader(index: int) -> Callable[[], State]:
            return lambda: self._load(index)

        made = tuple(ClientUpdate(i, 100.0, loader(i)) for i in range(clients))
        return Cohort(1, self._reference, made)

    def _load(self, index: int) -> State:
        started = time.process_time()
        shift = index * 5 % SHIFTS
        state: dict[str, NDArray[Any]] = {}
        for name, array in self._reference.items():
            if name not in self._trainable:
                state[name] = array
                continue
            size = np.float32(NOISE * np.abs(array).mean() + 1e-6)
            moved = self._noise[shift : shift + array.size].reshape(array.shape) * size
            moved += array
            state[name] = moved
        self.seconds += time.process_time() - started
        return state
