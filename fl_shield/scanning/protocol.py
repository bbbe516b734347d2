"""What every scanner offers: `fit` on what the defender holds, `score`, and a `threshold`.

Scores of a level mean the same thing for every scanner: higher is more suspicious, and what scores
*above* the threshold is suspected. There is one protocol a level, because what is judged differs:

| level | judges | a score for each |
|---|---|---|
| `sample` | inputs on their way into a deployed model | input |
| `data` | the training set of a model, with the labels that it came with | training sample |
| `model` | whole models | model |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_shield.data.task import TaskSpec
from fl_shield.errors import ConfigurationError, expected
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.training.local import LocalTraining

Level = Literal["sample", "data", "model"]

Scores = NDArray[np.float64]
"""`(samples,)` or `(models,)`; higher is more suspicious."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """What the defender holds. A scanner says which parts it needs, and refuses in one sentence.

    Attributes:
        clean: Clean samples of the task in the form the model takes, labelled or not.
        spec: Kind and shape of the task.
        model: The deployed model, in eval mode; None where only other models are judged.
        architecture: Builds an untrained model like the deployed one, for shadow models.
        training: How shadow models are trained; None for a scanner's own default.
        final_layer: Name of the final classification layer, None to find it.
        word_tokens: For texts, the token ids that are words; None for all but padding.
        seed: Everything random follows from it.
    """

    clean: ProbeSet
    spec: TaskSpec
    model: nn.Module | None = None
    architecture: Callable[[TaskSpec], nn.Module] | None = None
    training: LocalTraining | None = None
    final_layer: str | None = None
    word_tokens: tuple[int, ...] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Samples:
    """Inputs to be judged.

    Attributes:
        inputs: `(samples, channels, height, width)` floats in [0, 1], or `(samples, length)` int64
            token ids.
        labels: `(samples,)` int64 labels that came with them; None for inputs without labels.

    Raises:
        ConfigurationError: if the parts differ in length.
    """

    inputs: Tensor
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        """Check that there is a label for each input."""
        if self.labels is not None and self.labels.shape != self.inputs.shape[:1]:
            raise ConfigurationError(
                expected(
                    "samples.labels",
                    f"one for each of the {len(self.inputs)} inputs",
                    tuple(self.labels.shape),
                )
            )

    def __len__(self) -> int:
        return int(self.inputs.shape[0])


@runtime_checkable
class SampleScanner(Protocol):
    """Judges samples: inputs of a deployed model, or a training set.

    Attributes:
        name: Name in tables.
        level: `"sample"` or `"data"`.
    """

    name: ClassVar[str]
    level: ClassVar[Level]

    def fit(self, held: Held) -> Self:
        """Learn from what the defender holds, calibrate the threshold, and return the scanner.

        Raises:
            ConfigurationError: in one sentence, if something that the scanner needs is missing, or
                there are too few clean samples for the asked rate of false alarms.
        """
        ...

    def score(self, judged: Samples) -> Scores:
        """Return `(samples,)` scores, finite.

        Raises:
            ConfigurationError: if the scanner is not fitted.
        """
        ...

    @property
    def threshold(self) -> float:
        """Score above which a sample is suspected.

        Raises:
            ConfigurationError: if the scanner is not fitted.
        """
        ...


@runtime_checkable
class ModelScanner(Protocol):
    """Judges whole models.

    Attributes:
        name: Name in tables.
        level: `"model"`.
    """

    name: ClassVar[str]
    level: ClassVar[Level]

    def fit(self, held: Held) -> Self:
        """Learn from what the defender holds, calibrate the threshold, and return the scanner."""
        ...

    def score(self, judged: Sequence[nn.Module]) -> Scores:
        """Return `(models,)` scores, finite; the models are left as they were."""
        ...

    @property
    def threshold(self) -> float:
        """Score above which a model is suspected."""
        ...


def check_form(held: Held, judged: Samples, name: str) -> None:
    """Check that samples are of the kind and shape of the held ones.

    Raises:
        ConfigurationError: if they are not.
    """
    clean = require_inputs(held, name)
    own, given = _form(clean), _form(judged.inputs)
    if own != given:
        raise ConfigurationError(
            f"The scanner {name} was fitted to {own} and takes {_kind(clean)}, got the "
            f"{given}. Give inputs in the form that the model takes."
        )


def _kind(inputs: Tensor) -> str:
    return "images" if inputs.is_floating_point() else "texts as token ids"


def _form(inputs: Tensor) -> str:
    kind = "images" if inputs.is_floating_point() else "texts"
    return f"{kind} of shape {tuple(inputs.shape[1:])}"


def not_fitted(name: str) -> ConfigurationError:
    """Return the error of a scanner that is asked before `fit`."""
    return ConfigurationError(
        f"The scanner {name} is not fitted yet. Call fit(Held(…)) with what the defender holds."
    )


def require_model(held: Held, name: str) -> nn.Module:
    """Return the deployed model.

    Raises:
        ConfigurationError: if the defender holds none.
    """
    if held.model is None:
        raise ConfigurationError(
            f"The scanner {name} looks at what a deployed model makes of the inputs, and there is "
            "no model. Give Held(model=…)."
        )
    return held.model


def require_inputs(held: Held, name: str) -> Tensor:
    """Return the clean inputs as one tensor.

    Raises:
        ConfigurationError: if the model takes several named tensors.
    """
    if not isinstance(held.clean.inputs, Tensor):
        raise ConfigurationError(
            f"The scanner {name} changes inputs and takes them as one tensor, got "
            f"{', '.join(held.clean.tensors())}. Wrap the model so that it takes token ids alone."
        )
    return held.clean.inputs


def require_labels(held: Held, name: str) -> Tensor:
    """Return the labels of the clean samples.

    Raises:
        ConfigurationError: if there are none.
    """
    if held.clean.labels is None:
        raise ConfigurationError(
            f"The scanner {name} needs labelled clean samples, got none. "
            "Give ProbeSet(inputs, labels)."
        )
    return held.clean.labels
