"""What the server's own shadows are worth: `make results-shadows`.

Federations of the digits and the glyphs, with seeds that nothing else uses, are judged as whole
cohorts, and their clients one by one among the server's shadows; the live calibration is held
against the clients it was not made from. Finished federations are kept under `runs/shadows`, so
that an interrupted run goes on. Writes `docs/results/shadows.json` and a page of tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from benchmarks.server_shadows_page import page, summed
from fl_shield.cohort import Cohort
from fl_shield.detector import SHIPPED, default_detector
from fl_shield.detector.store import read_card
from fl_shield.inspection import Inspector
from fl_shield.judge.policy import Policy
from fl_shield.live.calibration import LiveCalibration
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
        classes = domain.task.spec.num_classes
        inspector = Inspector(model, probe_set(run.probes(), classes, min(samples, LOOKED_AT)))
        clean = probe_set(run.probes(), classes, samples)
        detector = default_detector()
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


def federations(domains: Sequence[str], data_root: str | None, work: Path) -> Iterator[Any]:
    """Play and measure the federations that are not there yet, and yield what was found."""
    ranges = replace(EVALUATION, rounds=ROUNDS)
    seeds = range(EVALUATION_SEED + FIRST_SEED, EVALUATION_SEED + FIRST_SEED + FEDERATIONS)
    jobs = [(name, seed) for seed in seeds for name in domains]
    for name, seed in track(jobs, "Judging federations"):
        file = work / f"{name}-{seed}.json"
        if not file.is_file():
            domain = load_domain(name, data_root)
            run = stored_run(play(domain, seed, ranges, work / "episodes"))
            draft = file.with_suffix(".part")
            draft.write_text(json.dumps(measure(run, data_root)) + "\n", encoding="utf-8")
            draft.replace(file)
        yield json.loads(file.read_text(encoding="utf-8"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default=None, help="folder of data sets that are files")
    parser.add_argument("--domains", default="digits,glyphs", help="names, separated by commas")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "shadows")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chosen.work.mkdir(parents=True, exist_ok=True)
    found = list(federations(chosen.domains.split(","), chosen.data, chosen.work))
    figures = {
        "detector_sha256": read_card(SHIPPED)["sha256"],
        "rate": RATE,
        "lent_shadows": LENT.benign,
        "rehearsed_shadows": HONEST,
        "rows": summed(found, [shifts(each) for each in found], THRESHOLD),
    }
    chosen.output.mkdir(parents=True, exist_ok=True)
    (chosen.output / "shadows.json").write_text(json.dumps(figures, indent=1) + "\n")
    (chosen.output / "shadows.md").write_text(page(figures, "make results-shadows"))
    print(page(figures, "make results-shadows"))


if __name__ == "__main__":
    main()
