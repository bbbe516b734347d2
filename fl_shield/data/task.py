"""What a learning task is: tensors of inputs and labels, and the facts a model is built from.

Images are stored as bytes and handed to models as floats in [0, 1]; models normalise inside, so
that a trigger means the same pixels for every model. Texts are token ids, padded with `pad_id`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Modality = Literal["image", "text"]


@dataclass(frozen=True)
class Split:
    """Inputs and labels of one part of a data set.

    Attributes:
        inputs: `(samples, channels, height, width)` uint8 images, or `(samples, length)` int64
            token ids.
        labels: `(samples,)` int64 class indices.
    """

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def take(self, indices: Tensor) -> Split:
        """Return the samples at `indices` (`(k,)` int64), in that order."""
        return Split(self.inputs[indices], self.labels[indices])


@dataclass(frozen=True)
class TaskSpec:
    """All that a model needs to know of a task.

    Attributes:
        modality: `"image"` or `"text"`.
        input_shape: `(channels, height, width)` or `(length,)`.
        num_classes: Number of classes.
        vocab_size: Number of token ids, 0 for images.
        pad_id: Padding token id, 0 for images.
    """

    modality: Modality
    input_shape: tuple[int, ...]
    num_classes: int
    vocab_size: int = 0
    pad_id: int = 0


@dataclass(frozen=True)
class Task:
    """A data set ready for federated learning.

    Attributes:
        name: Name of the data set, for tables and cards.
        spec: Facts for models and triggers.
        train: Training split, to be partitioned over clients.
        test: Test split, held by the evaluator only.
        classes: Class names, index = label.
        tokenizer: For text, the Hugging Face tokenizer that produced the ids; else None.
    """

    name: str
    spec: TaskSpec
    train: Split
    test: Split
    classes: tuple[str, ...]
    tokenizer: PreTrainedTokenizerFast | None = None


def model_inputs(inputs: Tensor) -> Tensor:
    """Return stored inputs in the form models take: floats in [0, 1] for images, ids for text."""
    return inputs.to(torch.float32) / 255.0 if inputs.dtype == torch.uint8 else inputs
