"""A round of real training on CIFAR-10 behind a real MetaShield: who takes how much of it.

Clients train one after the other, as they do when one machine simulates them all; each is kept, so
that the measurement can be stopped and started again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import load_file, save_file

from benchmarks.cost_models import SIZES, local_training
from fl_shield.cohort import State
from fl_shield.data.image_folder import load
from fl_shield.data.sampling import stratified_indices
from fl_shield.data.task import Task, model_inputs
from fl_shield.models.state import load_arrays, state_arrays
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.strategies import MetaShield
from fl_shield.training.local import train_locally

Cell = dict[str, Any]


def measure_round(cell: Cell) -> Cell:
    """Return processor seconds of training, shield and averaging of one round."""
    for name in ("_run_id", "_task_id", "_node_id"):  # messages ask the process for its identity
        setattr(TaskIdentity, name, 1)
    task = load(str(Path(cell["data"]) / "cifar10"))
    size = SIZES[cell["model"]]
    model = size.model()
    reference = state_arrays(model)
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(0))
    parts = order.chunk(cell["clients"])
    settings, store = local_training(size.training), Path(cell["store"])
    trained = [
        _trained(index, part, task, cell, store, reference) for index, part in enumerate(parts)
    ]
    row: Cell = {
        "training_seconds": sum(seconds for seconds, _ in trained),
        "samples_of_a_client": len(parts[0]),
        "batch_size": settings.batch_size,
    }
    sent = ArrayRecord({name: Array(array) for name, array in reference.items()})
    for probes in cell["probes"]:
        chosen = stratified_indices(task.test.labels, probes, 0)
        images = model_inputs(task.test.inputs[chosen])
        held = ProbeSet(images, task.test.labels[chosen])
        shield = MetaShield(FedAvg(), model, held, max_probes=probes)
        core = shield._shield_core
        asked = [
            Message(RecordDict({"arrays": sent}), message_type="train", dst_node_id=index + 1)
            for index in range(len(parts))
        ]
        replies = [
            _reply(message, file, len(part))
            for message, (_, file), part in zip(asked, trained, parts, strict=True)
        ]
        started = time.process_time()
        core.begin_round(1, sent, asked)
        kept, _ = core.filter_train(1, replies)
        shielded = time.process_time()
        FedAvg().aggregate_train(1, kept)
        row[f"shield_seconds_{probes}"] = shielded - started
        row["averaging_seconds"] = time.process_time() - shielded
    return row


def _trained(
    index: int, part: torch.Tensor, task: Task, cell: Cell, store: Path, reference: State
) -> tuple[float, Path]:
    """Train a client, or find it trained; return its processor seconds and its weights' file."""
    store.mkdir(parents=True, exist_ok=True)
    file, note = store / f"client-{index}.safetensors", store / f"client-{index}.json"
    if not note.is_file():
        size = SIZES[cell["model"]]
        model = size.model()
        load_arrays(model, reference)
        started = time.process_time()
        train_locally(model, task.train.take(part), local_training(size.training), seed=index)
        seconds = time.process_time() - started
        save_file(state_arrays(model), file)
        note.write_text(json.dumps({"seconds": seconds}), encoding="utf-8")
    return float(json.loads(note.read_text(encoding="utf-8"))["seconds"]), file


def _reply(message: Message, file: Path, examples: int) -> Message:
    arrays = ArrayRecord({name: Array(array) for name, array in load_file(file).items()})
    metrics = MetricRecord({"num-examples": examples, "train-loss": 1.0})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
