"""One measurement in a process of its own: `python -m benchmarks.cost_cells '{"kind": …}'`.

Times are processor time of one thread, so that other work on the machine counts for little. Memory
is the high-water mark of the process over what it held before (Linux: `VmHWM`, set back before).
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.serverapp.strategy.multikrum import select_multikrum
from torch import Tensor, nn

from benchmarks.cost_models import SIZES, LazyCohort, local_training, probe_set
from benchmarks.cost_round import measure_round
from fl_shield.baselines.observed import Observed
from fl_shield.data.task import Split
from fl_shield.detector import as_detector, columns_of
from fl_shield.inspection import Inspector
from fl_shield.judge.evidence import EvidenceBook
from fl_shield.judge.judge import Judge
from fl_shield.judge.policy import Policy
from fl_shield.strategies.deepsight import DeepSight
from fl_shield.strategies.flame import Flame
from fl_shield.strategies.flare import Flare
from fl_shield.strategies.rival import Rival
from fl_shield.training.local import train_locally

WARM = 3
"""Clients of the cohort that is described first, untimed: libraries prepare themselves."""

REPEATS, ENOUGH = 5, 2.0
"""Short measurements are repeated: at most as often, or until as many seconds; the least counts."""

Cell = dict[str, Any]


def main() -> None:
    """Measure the cell of the command line and print its row as JSON."""
    torch.set_num_threads(1)
    cell = json.loads(sys.argv[1])
    print(json.dumps(KINDS[cell["kind"]](cell)))


def measure_shield(cell: Cell) -> Cell:
    """Describe, score, explain and judge a cohort, and pass as many samples through the model."""
    size = SIZES[cell["model"]]
    model, clients = size.model(), int(cell["clients"])
    probes, cohorts = probe_set(size.spec, cell["probes"]), LazyCohort(model)
    detector = as_detector(None)
    columns = columns_of(detector)
    batches = batches_per_client(Inspector(model, probes, columns=columns), cohorts)
    before = reset_peak()
    inspector = Inspector(model, probes, columns=columns)
    judge = Judge(Policy(), EvidenceBook())
    seconds, marks = Counter[str](), list[int]()
    for part in ("_candidates", "_look_closer", "_describe_block"):
        setattr(inspector, part, _timed(getattr(inspector, part), part, seconds))

    def once() -> Cell:
        seconds.clear()
        cohorts.seconds = 0.0
        cohort = cohorts.of(clients)
        started = time.process_time()
        table = inspector.describe(cohort)
        described = time.process_time()
        marks.append(peak())
        scores, parts = detector.score(table), detector.contributions(table)
        judge.judge(1, range(clients), scores, table, parts)
        ended = time.process_time()
        return {
            "seconds": ended - started - cohorts.seconds,
            "judge_seconds": ended - described,
            "search_seconds": seconds["_candidates"],
            "candidate_seconds": seconds["_look_closer"],
            "statistics_seconds": seconds["_describe_block"],
            "load_seconds": cohorts.seconds,
        }

    row = best(once)
    return row | {
        "peak_bytes": peak() - before,
        "describe_peak_bytes": marks[0] - before,
        "floor_seconds_per_client": floor(model, batches, size.spec.input_shape),
        "samples_per_client": sum(batches),
    }


def measure_rival(cell: Cell) -> Cell:
    """Let a published defence decide about the same cohort, without averaging it."""
    size = SIZES[cell["model"]]
    model, clients = size.model(), int(cell["clients"])
    cohorts = LazyCohort(model)
    if cell["rival"] == "multi_krum":
        return _measure_multi_krum(cohorts, clients)
    rival = RIVALS[cell["rival"]](FedAvg(), model, probe_set(size.spec, cell["probes"]))
    decide(rival, cohorts, WARM)
    before = reset_peak()

    def once() -> Cell:
        cohorts.seconds = 0.0
        started = time.process_time()
        decide(rival, cohorts, clients)
        seconds = time.process_time() - started - cohorts.seconds
        return {"seconds": seconds, "load_seconds": cohorts.seconds}

    return best(once) | {"peak_bytes": peak() - before}


def decide(rival: Rival, cohorts: LazyCohort, clients: int) -> None:
    """Let a rival look at a cohort and decide."""
    rival.decide(Observed(cohorts.of(clients), rival.model, rival.probes, seed=rival.seed))


def _measure_multi_krum(cohorts: LazyCohort, clients: int) -> Cell:
    """Flower's own selection, on replies that are there already, as they are on a server."""
    cohort = cohorts.of(clients)
    replies = [
        RecordDict(
            {
                "arrays": ArrayRecord({k: Array(v) for k, v in client.load().items()}),
                "metrics": MetricRecord({"num-examples": 100}),
            }
        )
        for client in cohort.clients
    ]
    malicious = max((clients - 3) // 2, 0)
    select_multikrum(replies[:WARM], 0, 1)
    before = reset_peak()

    def once() -> Cell:
        started = time.process_time()
        select_multikrum(replies, malicious, max(clients - malicious, 1))
        return {"seconds": time.process_time() - started, "load_seconds": 0.0}

    return best(once) | {"peak_bytes": peak() - before}


def measure_training(cell: Cell) -> Cell:
    """Train one epoch on random samples, as the task's clients train."""
    size = SIZES[cell["model"]]
    model, settings = size.model(), local_training(size.training)
    spec, samples = size.spec, int(cell["samples"])
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(256, (samples, *spec.input_shape), generator=generator).to(torch.uint8)
    split = Split(images, torch.arange(samples) % spec.num_classes)
    train_locally(model, split.take(torch.arange(2 * settings.batch_size)), settings, seed=0)

    def once() -> Cell:
        started = time.process_time()
        train_locally(model, split, settings, seed=0)
        return {"seconds": time.process_time() - started}

    return best(once) | {"batch_size": settings.batch_size}


def batches_per_client(inspector: Inspector, cohorts: LazyCohort) -> list[int]:
    """Return the sizes of all batches that one more client sends through the model."""
    passes: list[int] = []

    def count(_model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        passes.append(len(inputs[0]))

    handle = inspector._model.register_forward_pre_hook(count)
    counts = []
    for clients in (WARM, WARM + 1):
        passes.clear()
        inspector.describe(cohorts.of(clients))
        counts.append(Counter(passes))
    handle.remove()
    return sorted((counts[1] - counts[0]).elements())


def floor(model: nn.Module, batches: list[int], shape: tuple[int, ...]) -> float:
    """Return the seconds of plain forward passes of as many samples in batches of the same sizes.

    The model runs as its owner would run it: its own weights, images as they come.
    """
    images = torch.rand(max(batches), *shape, generator=torch.Generator().manual_seed(3))

    def once() -> Cell:
        started = time.process_time()
        with torch.no_grad():
            for size in batches:
                model(images[:size])
        return {"seconds": time.process_time() - started}

    once()
    return float(best(once)["seconds"])


def best(once: Callable[[], Cell]) -> Cell:
    """Return the quickest of a few runs; long ones run once."""
    rows = [once()]
    while len(rows) < REPEATS and sum(row["seconds"] for row in rows) < ENOUGH:
        rows.append(once())
    return min(rows, key=lambda row: float(row["seconds"]))


def reset_peak() -> int:
    """Set the high-water mark of this process back and return its memory now, in bytes."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """Return the high-water mark of this process since it was set back, in bytes."""
    return _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1]) * 1024


def _timed(call: Callable[..., Any], name: str, seconds: Counter[str]) -> Callable[..., Any]:
    def timed(*args: Any) -> Any:
        started = time.process_time_ns()
        try:
            return call(*args)
        finally:
            seconds[name] += (time.process_time_ns() - started) / 1e9  # type: ignore[assignment]

    return timed


RIVALS: dict[str, Callable[..., Rival]] = {
    "flame": Flame,
    "flare": Flare,
    "deepsight": DeepSight,
    "deepsight_256": lambda *args: DeepSight(*args, num_noise=256),
}

KINDS: dict[str, Callable[[Cell], Cell]] = {
    "shield": measure_shield,
    "rival": measure_rival,
    "training": measure_training,
    "round": measure_round,
}


if __name__ == "__main__":
    main()
