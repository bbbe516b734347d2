"""Local training that ends at a given distance from the global model.

A server knows neither its clients' learning rate nor their optimiser. It sees how far they went:
the learning rate is chosen so that the training goes about as far, and the rest is rescaled. All
shadows use Adam, whose way does not depend on how small the gradients of a trained model are.
"""

from __future__ import annotations

import math

import numpy as np
from torch import nn

from fl_shield.cohort import State
from fl_shield.data.task import Split
from fl_shield.judge.rescale import ByPart, rescale, update_norms
from fl_shield.models.state import Arrays, load_arrays, state_arrays
from fl_shield.training.local import LocalTraining, train_locally

STEPS = (16, 48)
"""Optimiser steps of a shadow, uniform: what clients do in a few epochs."""

BATCHES = (16, 32)

REACH = 1.5
"""How much longer the way is than the distance, as gradients turn and shrink."""

TINY = 1e-12


def train_to(
    model: nn.Module,
    reference: State,
    split: Split,
    distance: float,
    rng: np.random.Generator,
) -> Arrays:
    """Return the weights of a client that trained from `reference` on `split`.

    Args:
        model: Of the federation's architecture; its weights are overwritten.
        reference: The global weights.
        split: Samples in the form the model takes.
        distance: L2 norm of the update, over the trainable parameters.
        rng: Source of chance; the same state gives the same weights.
    """
    load_arrays(model, reference)
    batch = int(rng.choice(BATCHES))
    steps_an_epoch = math.ceil(len(split) / batch)
    epochs = max(1, round(int(rng.integers(STEPS[0], STEPS[1] + 1)) / steps_an_epoch))
    steps = epochs * steps_an_epoch
    names = frozenset(name for name, _ in model.named_parameters(remove_duplicate=False))
    # A step of Adam is about as long as its rate, in every weight.
    size = sum(parameter.numel() for parameter in model.parameters())
    rate = max(REACH * distance / (steps**0.75 * math.sqrt(size)), TINY)
    settings = LocalTraining(optimiser="adam", learning_rate=rate, epochs=epochs, batch_size=batch)
    train_locally(model, split, settings, seed=int(rng.integers(2**31)))
    model.eval()
    trained = state_arrays(model)
    went = update_norms(trained, reference, names).parameters
    return rescale(trained, reference, ByPart(distance / max(went, TINY), 1.0), names)
