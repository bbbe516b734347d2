"""A long run of a large federation, watched for memory: `make results-soak`.

A thousand clients, fifty sampled a round, two hundred rounds, a fifth of the clients malicious and
attacking in every other round: `fl-shield simulate` in a process of its own, whose resident memory
is read from outside while it runs. Interrupted runs go on where they were. Writes
`docs/results/soak.json`, a page, and a plot.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
ARMS = ("clean", "undefended", "defended")
SETTINGS = (
    "num_clients=1000", "fraction_train=0.05", "attackers=0.2", "attack.schedule.every=2",
    "partition.alpha=1.0", "partition.min_size=2", "engine=in_process", "tracking=none",
    "data.max_test=500", "seed=0",
)  # fmt: skip
WARM_UP = 20
"""Rounds after which memory should have settled."""


def resident(pid: int) -> float | None:
    """Return a process's resident memory in MiB, None if it is gone (Linux)."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    except OSError:
        return None
    return None


def watch(command: Sequence[str], folder: Path, log: Path) -> list[dict[str, Any]]:
    """Run a command to its end; return samples of arm, round, and memory in MiB.

    Raises:
        SystemExit: if the command fails.
    """
    samples: list[dict[str, Any]] = []
    with log.open("a") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                memory = resident(process.pid)
                for arm in reversed(ARMS):
                    rounds = folder / "arms" / arm / "rounds.jsonl"
                    if rounds.exists() and memory is not None:
                        number = rounds.read_bytes().count(b"\n") - 1
                        samples.append({"arm": arm, "round": number, "mib": memory})
                        break
                time.sleep(1.0)
        finally:
            process.terminate()
    if process.wait() != 0:
        raise SystemExit(f"The run failed; its log is {log}.")
    return samples


def growth(samples: Sequence[Mapping[str, Any]], arm: str) -> dict[str, float]:
    """Return how memory grew over an arm: its median after warm-up, and its slope.

    The slope is a least-squares line over the rounds after `WARM_UP`, in MiB per 100 rounds.
    """
    points = [(s["round"], s["mib"]) for s in samples if s["arm"] == arm and s["round"] > WARM_UP]
    if len(points) < 2:
        return {}
    rounds, memory = np.array(points, dtype=np.float64).T
    slope = float(np.polyfit(rounds, memory, 1)[0]) if np.ptp(rounds) else 0.0
    return {
        "median_mib": float(np.median(memory)),
        "peak_mib": float(memory.max()),
        "mib_per_100_rounds": 100 * slope,
    }


def figures(folder: Path, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of a finished run."""
    found: dict[str, Any] = {"settings": list(SETTINGS), "arms": {}}
    for arm in ARMS:
        lines = (folder / "arms" / arm / "rounds.jsonl").read_text().splitlines()
        rounds = [json.loads(line) for line in lines]
        last = rounds[-10:]
        found["arms"][arm] = {
            "rounds": rounds[-1]["round"],
            "main_accuracy": float(np.mean([r["main_accuracy"] for r in last])),
            "asr": float(np.mean([r["asr"] for r in last])),
            "highest_asr": max(r["asr"] for r in rounds[1:]),
            "seconds_a_round": float(np.median([r["seconds"] for r in rounds[1:]])),
            **growth(samples, arm),
        }
        judged = [r for r in rounds[1:] if r["tpr"] is not None or r["fpr"] is not None]
        if arm == "defended" and judged:
            shares = [r["shield_seconds"] / r["seconds"] for r in rounds[1:]]
            found["arms"][arm] |= {
                "tpr": float(np.mean([r["tpr"] for r in judged if r["tpr"] is not None])),
                "fpr": float(np.mean([r["fpr"] for r in judged if r["fpr"] is not None])),
                "shield_share": float(np.median(shares)),
            }
    states = sorted((folder / "arms" / "defended" / "checkpoint").glob("*.json"))
    state = json.loads(json.loads(states[-1].read_text())["state"])
    found["clients_in_evidence"] = len(state["shield"]["judge"]["evidence"]["clients"])
    return found


def page(found: Mapping[str, Any]) -> str:
    """Return the figures, as Markdown."""
    rows = [
        f"| {arm} | {a['rounds']} | {a['main_accuracy']:.3f} | {a['asr']:.3f} | "
        f"{a['highest_asr']:.3f} | {a['seconds_a_round']:.2f} | {a.get('median_mib', 0):.0f} | "
        f"{a.get('mib_per_100_rounds', 0):+.1f} |"
        for arm, a in found["arms"].items()
    ]
    defended = found["arms"]["defended"]
    return "\n".join(
        [
            "# Soak",
            "",
            "Written by `make results-soak`: `fl-shield simulate` with "
            f"`{' '.join(found['settings'])}` on MNIST images.",
            "",
            "| arm | rounds | MA, last 10 | ASR, last 10 | highest ASR | seconds a round | "
            "memory, MiB | MiB per 100 rounds |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
            *rows,
            "",
            f"Evidence is kept of {found['clients_in_evidence']} clients. Attackers held back per "
            f"round {defended['tpr']:.3f}, benign clients {defended['fpr']:.3f}; the shield takes "
            f"{defended['shield_share']:.0%} of a round in which fifty clients train on eight "
            "images each.",
            "",
            "![memory over the rounds](soak.png)",
            "",
        ]
    )


def plot(samples: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw memory over the rounds of each arm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for arm in ARMS:
        points = [(s["round"], s["mib"]) for s in samples if s["arm"] == arm]
        if points:
            axes.plot(*zip(*points, strict=True), label=arm)
    axes.set(xlabel="round", ylabel="resident memory (MiB)", ylim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, watch, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "soak")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results")
    chosen = parser.parse_args(arguments)
    images = chosen.data / "mnist"
    if not images.is_dir():
        raise SystemExit(f"There are no images in {images}; name a folder with --data DIR.")
    chosen.cache.mkdir(parents=True, exist_ok=True)
    folder = chosen.cache / "run"
    program = [sys.executable, "-m", "fl_shield.simulations.cli", "simulate"]
    settings = [
        "data=image_folder", f"data.root={images.resolve()}", "model=mnist_cnn",
        f"arms=[{','.join(ARMS)}]", f"rounds={chosen.rounds}", *SETTINGS,
        f"output_root={chosen.cache.resolve()}", "run_name=run",
    ]  # fmt: skip
    command = [*program, "--resume", str(folder)] if folder.exists() else [*program, *settings]
    memory = chosen.cache / "memory.json"
    samples = json.loads(memory.read_text()) if memory.exists() else []
    samples += watch(command, folder, chosen.cache / "log.txt")
    memory.write_text(json.dumps(samples))
    found = figures(folder, samples)
    chosen.output.mkdir(parents=True, exist_ok=True)
    (chosen.output / "soak.json").write_text(json.dumps(found, indent=1) + "\n")
    (chosen.output / "soak.md").write_text(page(found))
    plot(samples, chosen.output / "soak.png")
    print(page(found))


if __name__ == "__main__":
    main()
