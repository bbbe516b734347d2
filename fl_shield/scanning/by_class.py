"""Going through the samples of a training set class by class."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fl_shield.errors import ConfigurationError
from fl_shield.scanning.protocol import Samples, Scores

Floats = NDArray[np.float64]


def labels_of(judged: Samples, name: str) -> NDArray[np.int64]:
    """Return the labels of a training set.

    Raises:
        ConfigurationError: if there are none, or only one class.
    """
    if judged.labels is None:
        raise ConfigurationError(
            f"The scanner {name} looks at a training set class by class and needs its labels, got "
            "none. Give Samples(inputs, labels)."
        )
    labels = np.asarray(judged.labels.cpu().numpy(), dtype=np.int64)
    if len(np.unique(labels)) < 2:
        raise ConfigurationError(
            f"The scanner {name} needs samples of two classes or more, got "
            f"{len(np.unique(labels))}: a classifier of one class has no backdoor."
        )
    return labels


def per_class(
    activations: Floats, labels: NDArray[np.int64], function: Callable[[Floats], Scores]
) -> Scores:
    """Return `function` of each class's `(members, features)`, put back in order.

    Args:
        activations: `(samples, features)`.
        labels: `(samples,)`.
        function: From the activations of a class to a score for each of its samples.
    """
    scores = np.zeros(len(labels))
    for label in np.unique(labels):
        members = labels == label
        scores[members] = function(activations[members])
    return scores
