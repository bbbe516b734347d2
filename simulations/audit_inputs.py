"""What `fl-shield audit` is given besides a capture: the model's architecture and the probes.

A model is a `module:factory` of the user's own code, or a file of `torch.export`. TorchScript is
not taken: its modules refuse forward hooks and replaced weights, so that nothing but logits can be
read from them.
"""

from __future__ import annotations

import contextlib
import io
import sys
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fl_shield.activations.penultimate import call_model
from fl_shield.data.task import TaskSpec
from fl_shield.errors import ConfigurationError, DataError, ModelError, expected, unknown
from fl_shield.probes.probe_set import Inputs, ProbeSet

LABELS = "labels"

EXPORT = "torch.export.save(torch.export.export(model.eval(), …), 'model.pt2')"


def read_probes(file: str | Path) -> ProbeSet:
    """Return the probe set of a safetensors file.

    The file holds a tensor `inputs`, or the model's named tensors, `input_ids` among them; and
    `labels`, if there are any.

    Raises:
        DataError: if the file is missing, damaged or holds other tensors.
        ConfigurationError: if the tensors are no probe set (see `ProbeSet`).
    """
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise DataError(
            expected("--probes", "a safetensors file", str(file), f"{_line(error)}.")
        ) from error
    labels = tensors.pop(LABELS, None)
    inputs: Inputs
    if set(tensors) == {"inputs"}:
        inputs = tensors["inputs"]
    elif "input_ids" in tensors and "inputs" not in tensors:
        inputs = tensors
    else:
        raise DataError(
            f"{file} must hold a tensor `inputs`, or `input_ids` and what else the model takes by "
            f"name, and may hold `labels`; it holds {', '.join(sorted(tensors)) or 'nothing'}."
        )
    return ProbeSet(inputs, labels)


def import_model(name: str) -> nn.Module:
    """Return the model that `module:factory` makes; the current directory is searched as well.

    Args:
        name: A module and, in it, a function or class to be called without arguments.

    Raises:
        ConfigurationError: if it cannot be imported or called.
        ModelError: if what comes out is no `torch.nn.Module`.
    """
    where, _, what = name.partition(":")
    if not (where and what):
        raise ConfigurationError(expected("--model", "module:factory", name, "E.g. my_model:Net."))
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = import_module(where)
    except Exception as error:  # whatever a user's module does when it is imported
        raise ConfigurationError(
            f"Expected `--model` to name a module that can be imported from here, got {where!r} "
            f"({type(error).__name__}: {_line(error)})."
        ) from error
    factory = getattr(module, what, None)
    if factory is None:
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise ConfigurationError(unknown(f"factory of {where}", what, known))
    if not callable(factory) or isinstance(factory, nn.Module):
        model = factory
    else:
        try:
            model = factory()
        except Exception as error:
            raise ConfigurationError(
                f"{name} must be callable without arguments and return the model "
                f"({type(error).__name__}: {_line(error)})."
            ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(expected("--model", "a torch.nn.Module", type(model).__name__))
    return model


def architecture_of(name: str) -> Callable[[TaskSpec], nn.Module]:
    """Return what makes an untrained model; weights that the factory loads are drawn anew."""

    def build(_: TaskSpec) -> nn.Module:
        model = import_model(name)
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        return model

    return build


def read_model(file: str | Path, probes: ProbeSet) -> nn.Module:
    """Return the model of a file written by `torch.export.save`, its module tree restored.

    Args:
        file: The `.pt2` file. A model file is a program: read only your own.
        probes: What it is tried on.

    Raises:
        ModelError: if the file is another kind of file, or its model cannot be looked into.
    """
    path = Path(file)
    if not path.is_file():
        raise ModelError(expected("--model-file", "an existing file", str(file)))
    _refuse_others(path)
    quiet = io.StringIO()  # torch.export reports damaged archives at length before it raises
    try:
        with contextlib.redirect_stderr(quiet):
            model = torch.export.unflatten(torch.export.load(path))
    except Exception as error:  # it has no errors of its own
        raise ModelError(
            f"{file} cannot be read as a model of torch.export "
            f"({type(error).__name__}: {_line(error)}). Write it anew: {EXPORT}."
        ) from error
    _make_copyable(model)
    _restore_embeddings(model)
    _check_batches(model, probes, path)
    return model


def _refuse_others(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise ModelError(
            f"{path} is no file of torch.export. Write one: {EXPORT}, or use --model."
        ) from error
    if any("/code/" in name or name.endswith("constants.pkl") for name in names):
        raise ModelError(
            f"{path} is TorchScript, whose modules let nobody read their activations or replace "
            f"their weights. Export the model instead: {EXPORT}, or use --model."
        )
    if any(name.endswith("/data.pkl") for name in names) and not any(
        name.endswith((".json", "archive_format")) for name in names
    ):
        raise ModelError(
            f"{path} is a pickle of torch.save, which is never read. Export the model instead: "
            f"{EXPORT}, or use --model."
        )


def _make_copyable(model: nn.Module) -> None:
    """Drop the fake tensors that exported graphs remember of their tracing; they resist copying."""
    for module in model.modules():
        graph = getattr(module, "graph", None)
        if isinstance(graph, torch.fx.Graph):
            for node in graph.nodes:
                node.meta.clear()


def _restore_embeddings(model: nn.Module) -> None:
    """Make modules that only look rows up `nn.Embedding` again: token descriptors look for them."""
    for name, module in list(model.named_modules()):
        graph, weight = getattr(module, "graph", None), getattr(module, "weight", None)
        if not (name and isinstance(graph, torch.fx.Graph) and isinstance(weight, nn.Parameter)):
            continue
        calls = [node.target for node in graph.nodes if node.op == "call_function"]
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        if calls == [torch.ops.aten.embedding.default] and len(inputs) == 1:
            table = nn.Embedding(weight.shape[0], weight.shape[1], device="meta")
            table.weight = weight
            above, _, own = name.rpartition(".")
            setattr(model.get_submodule(above), own, table)


def _check_batches(model: nn.Module, probes: ProbeSet, path: Path) -> None:
    """Check that samples are judged by themselves, in batches of any size."""
    with torch.no_grad():
        try:
            whole = call_model(model, probes.inputs)
            half = call_model(model, _first(probes.inputs, len(probes) // 2))
        except Exception as error:
            raise ModelError(
                f"{path} does not take probes in batches of {len(probes)} and {len(probes) // 2} "
                f"({_line(error)}). Export it with a dynamic batch size, "
                "dynamic_shapes=({0: torch.export.Dim('batch')},)."
            ) from error
    if not torch.allclose(whole[: len(half)], half, rtol=1e-3, atol=1e-4):
        raise ModelError(
            f"{path} was exported in training mode: its answer to a sample depends on others, or "
            "on chance. Call model.eval() before torch.export.export."
        )


def _first(inputs: Inputs, count: int) -> Any:
    if isinstance(inputs, Tensor):
        return inputs[:count]
    return {name: tensor[:count] for name, tensor in inputs.items()}


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
