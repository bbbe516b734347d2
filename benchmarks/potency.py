"""Which attacks work: `docs/results/potency.csv`, a row a configuration.

    python -m benchmarks.potency data_root=../shared/data workers=2

Runs what is left of the study `potency` (`conf/study/potency.yaml`): every attack in the
configuration that the other studies use, without a defence. An attack is potent if its success rate
ends at 0.80 or more with main accuracy within two points of the clean run of the same data and
seed; where it is not, the column `why_not` says by how much. Run in pieces with
`'include=[{data:digits}]'`; `--report-only` writes the table from what is there.
"""

from __future__ import annotations

import sys

from benchmarks.study_results import RESULTS, Record, number, rows_of_study, write_csv

LEAST_ASR = 0.80
MOST_LOST = 0.02
"""Main accuracy that a stealthy attack may cost, as a share."""

COLUMNS = ("data", "model", "attack", "trigger", "attackers", "seed", "rounds", "clean_ma",
           "clean_asr", "final_ma", "final_asr", "max_asr", "seconds_per_round")  # fmt: skip


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
