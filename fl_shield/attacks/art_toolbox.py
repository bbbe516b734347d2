"""The Adversarial Robustness Toolbox (ART), fed with models and tensors of this project.

ART works on arrays, draws from the global generators of NumPy, Python and torch, and talks while it
works. Here it gets a copy of the model, is seeded by the caller, and keeps quiet.
"""

from __future__ import annotations

import copy
import io
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_shield.activations.penultimate import find_final_layer
from fl_shield.attacks.crafting import Material
from fl_shield.attacks.reading import read
from fl_shield.data.task import Task
from fl_shield.errors import ConfigurationError, expected

if TYPE_CHECKING:
    from art.estimators.classification import PyTorchClassifier

FEATURES = "features"
"""The layer of a `classifier` that puts out penultimate features."""

Array = NDArray[np.float32]


def check_usable(name: str, task: Task) -> None:
    """Check that ART is installed and that the task is one of images.

    Args:
        name: What the attack is called.
        task: The task.

    Raises:
        ConfigurationError: if one of them is not so.
    """
    if task.spec.modality != "image":
        raise ConfigurationError(
            f"The attack {name} changes pixels, and {task.name} is a task of texts. Choose another "
            "attack, for example attack=badnets."
        )
    try:
        version("adversarial-robustness-toolbox")
    except PackageNotFoundError:
        raise ConfigurationError(
            f"The attack {name} needs the Adversarial Robustness Toolbox: pip install "
            "'fl-shield[art]'."
        ) from None


def positive(name: str, value: float) -> list[str]:
    """Return what is wrong with a setting that must be above 0: one sentence, or none."""
    return [] if value > 0 else [expected(f"crafting.{name}", "above 0", value)]


def within_one(name: str, value: float) -> list[str]:
    """Return what is wrong with a distance between pixels in [0, 1]: one sentence, or none."""
    return [] if 0 < value <= 1 else [expected(f"crafting.{name}", "in (0, 1]", value)]


def classifier(material: Material) -> PyTorchClassifier:
    """Return ART's view of a copy of the model, on the GPU if there is one: what ART expects."""
    from art.estimators.classification import PyTorchClassifier

    device = next(material.model.parameters()).device
    model = copy.deepcopy(material.model).eval().requires_grad_(True)
    sample = material.chosen[:1].to(device)
    final_layer = find_final_layer(model, sample)
    with torch.no_grad():
        logits, _ = read(model, final_layer, sample)
    layers = [
        (FEATURES, _Features(model, final_layer)),
        ("head", model.get_submodule(final_layer)),
    ]
    return PyTorchClassifier(
        model=nn.Sequential(OrderedDict(layers)),
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(sample.shape[1:]),
        nb_classes=logits.shape[1],
        clip_values=(0.0, 1.0),
    )


def array(inputs: Tensor) -> Array:
    """Return a copy of images as ART takes them."""
    return inputs.detach().cpu().numpy().astype(np.float32)


def tensor(images: NDArray[Any], like: Tensor) -> Tensor:
    """Return images of ART as a tensor of the dtype and device of `like`."""
    return torch.from_numpy(np.asarray(images, dtype=np.float32)).to(like)


def one_hot(target: int, classes: int, count: int) -> Array:
    """Return `(count, classes)` rows that all stand for the class `target`."""
    return np.tile(np.eye(classes, dtype=np.float32)[target], (count, 1))


def triggering(material: Material) -> Callable[[NDArray[Any]], Array]:
    """Return the trigger as a function from arrays to arrays."""

    def apply(images: NDArray[Any]) -> Array:
        inputs = tensor(images, material.chosen)
        return array(material.trigger.apply(inputs, material.generator))

    return apply


@contextmanager
def quiet_and_seeded(generator: torch.Generator) -> Iterator[None]:
    """Seed what ART draws from, put it back afterwards, and let nothing of its talk through."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    numpy_state, python_state = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        with (
            torch.random.fork_rng(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            torch.manual_seed(seed)
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


class _Features(nn.Module):
    """A model up to its final layer."""

    def __init__(self, model: nn.Module, final_layer: str) -> None:
        super().__init__()
        self.model, self.final_layer = model, final_layer

    def forward(self, inputs: Tensor) -> Tensor:
        _, features = read(self.model, self.final_layer, inputs)
        return features
