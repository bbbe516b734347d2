"""Model weights to NumPy arrays and back, key for key as in `state_dict()`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fl_shield.errors import ModelError

Arrays = dict[str, NDArray[np.generic]]


def state_arrays(model: nn.Module) -> Arrays:
    """Return a copy of the model's parameters and buffers; later training does not change it."""
    return {
        name: np.array(tensor.detach().cpu().numpy()) for name, tensor in model.state_dict().items()
    }


def load_arrays(model: nn.Module, state: Mapping[str, NDArray[np.generic]]) -> None:
    """Copy `state` into the model, in place, in the model's own dtypes.

    Raises:
        ModelError: if a name is missing or unknown, or a shape differs; the model is unchanged.
    """
    own = model.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or extra:
        raise ModelError(
            f"The weights do not fit the model: missing {_few(missing)}; unknown {_few(extra)}. "
            "Use weights of the same architecture and settings."
        )
    for name, tensor in own.items():
        if tuple(state[name].shape) != tuple(tensor.shape):
            raise ModelError(
                f"The weights do not fit the model: {name!r} has shape {tuple(state[name].shape)}, "
                f"the model's is {tuple(tensor.shape)}. Use the same architecture and settings."
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.from_numpy(np.array(state[name])))


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:3]) or "none"
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
