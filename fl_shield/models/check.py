"""Checks that all models make of the task they are built for."""

from __future__ import annotations

from fl_shield.data.task import TaskSpec
from fl_shield.errors import ModelError, expected


def check_images(model: str, spec: TaskSpec, smallest: int) -> tuple[int, int, int]:
    """Return `(channels, height, width)` of an image task.

    Raises:
        ModelError: if the task is not one of images, or they are smaller than `smallest` pixels.
    """
    if spec.modality != "image":
        raise ModelError(
            f"The model {model} takes images, but the data are {spec.modality}. "
            "Choose model=transformer, text_cnn or lstm."
        )
    channels, height, width = spec.input_shape
    if min(height, width) < smallest:
        raise ModelError(
            expected(
                f"images for {model}",
                f"at least {smallest} pixels high and wide",
                f"{height}x{width}",
                "Choose model=digits_cnn or mlp, or a larger data.image_size.",
            )
        )
    return channels, height, width


def check_text(model: str, spec: TaskSpec, shortest: int = 1) -> int:
    """Return the length of a text task.

    Raises:
        ModelError: if the task is not one of text, the texts are shorter than `shortest` tokens,
            or the vocabulary does not hold the padding token.
    """
    if spec.modality != "text":
        raise ModelError(
            f"The model {model} takes text, but the data are {spec.modality}s. "
            "Choose model=digits_cnn, mnist_cnn, cifar_cnn, resnet18 or mlp."
        )
    length = spec.input_shape[0]
    if length < shortest:
        raise ModelError(
            expected(
                f"texts for {model}",
                f"at least {shortest} tokens long",
                length,
                "Raise data.max_length.",
            )
        )
    if not 0 <= spec.pad_id < spec.vocab_size:
        raise ModelError(
            f"The model {model} needs a vocabulary that holds the padding token, got "
            f"vocab_size={spec.vocab_size} and pad_id={spec.pad_id}. Set both in the TaskSpec."
        )
    return length
