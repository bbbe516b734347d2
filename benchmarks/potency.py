"""Which attacks work: `docs/results/potency.csv`, a row a configuration.

    python -m benchmarks.potency data_root=../shared/data workers=2

Runs what is left of the study `potency` (`conf/study/potency.yaml`): every attack in its reference
configuration, without a defence. The column `settings` says how that differs from `fl-shield
simulate` as it is. An attack is potent if its success rate ends at 0.80 or more with main accuracy
within two points of the clean run of the same data and seed; where it is not, the column `why_not`
says by how much. Run in pieces with `'include=[{data:digits}]'`; `--report-only` writes the table
from what is there.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from omegaconf import OmegaConf

from benchmarks.study_results import RESULTS, ROOT, Record, number, rows_of_study, write_csv
from fl_shield.simulations.composing import FOLDER, compose_config, config_groups

LEAST_ASR = 0.80
MOST_LOST = 0.02
"""Main accuracy that a stealthy attack may cost, as a share."""

COLUMNS = ("data", "model", "attack", "trigger", "attackers", "seed", "rounds", "clean_ma",
           "clean_asr", "final_ma", "final_asr", "max_asr", "seconds_per_round")  # fmt: skip

TOLD_ELSEWHERE = {
    "data", "model", "attack", "trigger", "attackers", "seed", "defence",
    "data.root", "data.path", "arms", "output_root", "run_name", "tracking",
}  # fmt: skip
"""Overrides of a cell that another column tells, or that do not change what comes of it."""

CHECKPOINT = "warm_start.checkpoint"


def differing(overrides: Sequence[str]) -> str:
    """Return those overrides of a run that make it another than the default, in words of its own.

    `warm_start=15` stands for the checkpoint of 15 clean rounds, as in a study.

    >>> differing(["goal=one_to_one", "attack.poison_share=0.5", "rounds=50", "trigger.alpha=0.3"])
    'goal=one_to_one rounds=50 trigger.alpha=0.3'
    """
    options = config_groups()
    chosen = [text for text in overrides if text.partition("=")[0] in options]
    default = compose_config(chosen)
    usual = _usual_options()
    found = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key == CHECKPOINT:
            found.append(f"warm_start={_rounds_of(Path(str(yaml.safe_load(value))))}")
        elif key not in TOLD_ELSEWHERE:
            own = usual.get(key) if key in options else OmegaConf.select(default, key)
            if own != yaml.safe_load(value):
                found.append(override)
    return " ".join(found)


def _usual_options() -> dict[str, str]:
    """Return the option of each group that `fl-shield simulate` takes by itself."""
    tree = yaml.safe_load((FOLDER / "config.yaml").read_text(encoding="utf-8"))
    return {
        group: option
        for choice in tree["defaults"]
        if isinstance(choice, dict)
        for group, option in choice.items()
    }


def _rounds_of(checkpoint: Path) -> str:
    """Return the rounds of the run that a checkpoint (`RUN/arms/ARM/checkpoint`) belongs to."""
    overrides = overrides_of(checkpoint.parents[2])
    return next((text[7:] for text in overrides if text.startswith("rounds=")), "?")


def overrides_of(run: Path) -> list[str]:
    """Return what `fl-shield simulate` was told for a run, from its folder."""
    return shlex.split((run / "command.txt").read_text(encoding="utf-8"))[2:]


def why_not(row: Record) -> str:
    """Return what an attack lacks, empty if it is potent.

    >>> why_not({"final_asr": "0.5", "final_ma": "0.9", "clean_ma": "0.97", "max_asr": "0.85"})
    'ASR 0.500 is below 0.8 (it reached 0.850); main accuracy is 7.0 points below clean'
    >>> why_not({"final_asr": "0.8", "final_ma": "0.95", "clean_ma": "0.97", "max_asr": "0.9"})
    ''
    """
    asr, accuracy, clean = (number(row, key) for key in ("final_asr", "final_ma", "clean_ma"))
    if asr is None or accuracy is None:
        return "not measured"
    if clean is None:
        return "the clean run of this data set and seed is missing"
    lacks = []
    if asr < LEAST_ASR:
        lacks.append(
            f"ASR {asr:.3f} is below {LEAST_ASR} (it reached {number(row, 'max_asr') or 0:.3f})"
        )
    if clean - accuracy > MOST_LOST + 1e-9:
        lacks.append(f"main accuracy is {100 * (clean - accuracy):.1f} points below clean")
    return "; ".join(lacks)


def main() -> None:
    rows = [
        row
        for row in rows_of_study("potency", sys.argv[1:])
        if row["trigger"] and row["defence"] == "none" and row["finished"] == "yes"
    ]
    if not rows:
        sys.exit("No attacked run of the study is finished yet.")
    table = [
        {
            **{name: row[name] for name in COLUMNS},
            "settings": differing(overrides_of(ROOT / "studies" / "potency" / row["run"])),
            "potent": "no" if why_not(row) else "yes",
            "why_not": why_not(row),
        }
        for row in sorted(rows, key=lambda r: (r["data"], r["attack"], r["trigger"], r["seed"]))
    ]
    write_csv(RESULTS / "potency.csv", table)
    potent = sum(row["potent"] == "yes" for row in table)
    print(f"{potent} of {len(table)} configurations are potent → {RESULTS / 'potency.csv'}")
    for row in table:
        if row["why_not"]:
            print(f"  {row['data']} {row['attack']} {row['trigger']}: {row['why_not']}")


if __name__ == "__main__":
    main()
