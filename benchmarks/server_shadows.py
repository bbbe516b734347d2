"""What the server's own shadows are worth: `make results-shadows`.

Federations of the digits and the glyphs, with seeds that nothing else uses, are judged as whole
cohorts, and their clients one by one among the server's shadows; the live calibration is held
against the clients, of which it knows nothing. Finished federations are kept under `runs/shadows`,
so that an interrupted run goes on. Writes `docs/results/shadows.json` and a page of tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from benchmarks.server_shadows_page import page, summed
from fl_shield.atomic import draft_of
from fl_shield.cohort import Cohort
from fl_shield.detector import SHIPPED, columns_of, default_detector
from fl_shield.detector.store import read_card
from fl_shield.inspection import Inspector
from fl_shield.judge.policy import Policy
from fl_shield.live.calibration import LiveCalibration
from fl_shield.live.noise import NoiseProbes
from fl_shield.live.rehearsal import Rehearsal
from fl_shield.live.server_shadows import ServerShadows, ShadowSettings
from fl_shield.shadow.describe import probe_set
from fl_shield.shadow.recipe import EVALUATION
from fl_shield.shadow.store import StoredRun, play, stored_run
from fl_shield.simulations.shadow import EVALUATION_SEED, load_domain

ROOT = Path(__file__).resolve().parents[1]

FIRST_SEED, FEDERATIONS = 700, 6
"""Seeds of the evaluation (after one million); others chose the settings of the shadows."""

ROUNDS = 2
"""Rounds of a federation, of which the last is judged."""

SAMPLES = (4, 16, 64)
"""Clean samples of the server; at most 16 of them are looked at, all are learned from."""

LOOKED_AT = 16
ALONE = 3
"""Clients of a round that are judged one by one: so many malicious and so many honest ones."""

RATE = 0.05
"""False positive rate of the live calibration."""

LENT = ShadowSettings(poisoned=0)
"""Shadows that a client is judged among: the default number."""

HONEST, POISONED = 19, 4
"""Shadows of a rehearsal: as many honest ones as the rate needs."""

THRESHOLD = Policy.threshold
"""Score from which a client is flagged; the detector that ships is calibrated for it."""


def measure(run: StoredRun, data_root: str | None) -> dict[str, Any]:
    """Return the scores of a federation's last round, of its clients and of shadows.

    Args:
        run: The federation.
        data_root: Folder of the data sets that are files.
    """
    domain = load_domain(run.domain, data_root)
    entry = run.rounds[-1]
    cohort, malicious = run.cohort(entry), np.array(entry["malicious"], dtype=bool)
    found: dict[str, Any] = {
        "domain": run.domain,
        "run": run.name,
        "malicious": malicious.tolist(),
        "samples": {},
    }
    rng = np.random.default_rng(0)
    bad, good = (rng.permutation(np.flatnonzero(kind))[:ALONE] for kind in (malicious, ~malicious))
    for samples in SAMPLES:
        model = domain.architectures[run.facts["architecture"]].model(domain.task.spec)
        detector = default_detector()
        clean = probe_set(run.probes(), domain.task.spec, samples)
        looked_at = probe_set(run.probes(), domain.task.spec, min(samples, LOOKED_AT))
        inspector = Inspector(model, looked_at, columns=columns_of(detector))
        settings = ShadowSettings(benign=HONEST, poisoned=POISONED, false_alarms=RATE)
        rehearsal = Rehearsal(ServerShadows(model, clean, settings), THRESHOLD)
        honest, poisoned = rehearsal.try_out(inspector, detector, cohort)
        figures = {
            "full": detector.score(inspector.describe(cohort)).tolist(),
            "honest_shadows": honest.tolist(),
            "poisoned_shadows": poisoned.tolist(),
            "distinct": rehearsal.shadows.material.distinct,
        }
        if samples == LOOKED_AT:
            few = Rehearsal(ServerShadows(model, clean, LENT), THRESHOLD)
            figures["alone"] = {
                str(index): float(few.score(inspector, detector, _only(cohort, index), 3).scores[0])
                for index in sorted([*bad.tolist(), *good.tolist()])
            }
        found["samples"][str(samples)] = figures
    return found


def _only(cohort: Cohort, index: int) -> Cohort:
    return replace(cohort, clients=(cohort.clients[index],))


def shifts(found: Mapping[str, Any]) -> dict[str, float | None]:
    """Return what the live calibration subtracts in a federation, by number of clean samples."""
    shifts: dict[str, float | None] = {}
    for samples, figures in found["samples"].items():
        calibration = LiveCalibration(RATE, figures["distinct"], THRESHOLD)
        calibration.add(figures["honest_shadows"])
        shifts[samples] = calibration.shift
    return shifts


def measure_noise(run: StoredRun, data_root: str | None) -> list[float]:
    """Return the scores of the same clients by a server without any clean sample."""
    domain = load_domain(run.domain, data_root)
    model = domain.architectures[run.facts["architecture"]].model(domain.task.spec)
    spec = domain.task.spec
    detector = default_detector()
    noise = NoiseProbes(spec.input_shape, vocab_size=spec.vocab_size)
    table = Inspector(model, noise, columns=columns_of(detector)).describe(
        run.cohort(run.rounds[-1])
    )
    return [float(score) for score in detector.score(table)]


def federations(
    domains: Sequence[str], count: int, data_root: str | None, work: Path, detector: str
) -> Iterator[dict[str, Any]]:
    """Play and measure the federations that are not there yet, and yield what was found.

    Args:
        domains: Data sets.
        count: Federations of each.
        data_root: Folder of the data sets that are files.
        work: Where federations are kept.
        detector: Folder in it for the scores of this detector.
    """
    ranges = replace(EVALUATION, rounds=ROUNDS)
    seeds = range(EVALUATION_SEED + FIRST_SEED, EVALUATION_SEED + FIRST_SEED + count)
    jobs = [(name, seed) for seed in seeds for name in domains]
    for name, seed in track(jobs, "Judging federations"):

        def played(name: str = name, seed: int = seed) -> StoredRun:
            domain = load_domain(name, data_root)
            return stored_run(play(domain, seed, ranges, work / "episodes"))

        file = work / detector / f"{name}-{seed}"
        found = kept(file.with_suffix(".json"), lambda: measure(played(), data_root))
        noise = kept(file.with_suffix(".noise.json"), lambda: measure_noise(played(), data_root))
        yield {**found, "noise": noise}


def kept(file: Path, made: Callable[[], Any]) -> Any:
    """Return what is in a JSON file, made and written first if it is not there."""
    if not file.is_file():
        found = made()
        with draft_of(file) as draft:
            draft.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default=None, help="folder of data sets that are files")
    parser.add_argument("--domains", default="digits,glyphs", help="names, separated by commas")
    parser.add_argument("--federations", type=int, default=FEDERATIONS, help="of each data set")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "shadows")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    digest = read_card(SHIPPED)["sha256"]
    (chosen.work / digest[:12]).mkdir(parents=True, exist_ok=True)
    domains = chosen.domains.split(",")
    found = list(federations(domains, chosen.federations, chosen.data, chosen.work, digest[:12]))
    figures = {
        "detector_sha256": digest,
        "rate": RATE,
        "lent_shadows": LENT.benign,
        "rehearsed_shadows": HONEST,
        "rows": summed(found, [shifts(each) for each in found], THRESHOLD),
    }
    chosen.output.mkdir(parents=True, exist_ok=True)
    (chosen.output / "shadows.json").write_text(json.dumps(figures, indent=1) + "\n")
    command = "make results-shadows"
    if chosen.federations != FEDERATIONS:
        command += f" ARGS='--federations {chosen.federations}'"
    (chosen.output / "shadows.md").write_text(page(figures, command))
    print(page(figures, command))


if __name__ == "__main__":
    main()
