"""The results of the detector as JSON, Markdown tables and the table in README."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.detection_figures import mean
from benchmarks.detector_data import JUDGED, ROOT
from benchmarks.detector_plots import draw_rivals
from benchmarks.marked_table import write_table
from fl_shield.shadow.table import EpisodeTable

RESULTS = ROOT / "docs" / "results"
COMMAND = "make results-detector"

SAMPLES = "clean samples"
"""The table of the number of clean samples."""

FEDERATIONS = "federations"
"""The table of how many federations were learned from."""

KNOWN_TRIGGER = "known trigger"
"""The table of one who knows the trigger, and the name of that statistic."""

NO_EXPERTS = "without experts"
"""The table of detectors whose experts are not heard, and the name of that statistic."""

GRADED = "graded"
"""The table of settings of the shield's default policy."""

HELD_BACK = "held back"
"""The table of federations in which honest clients are wrongly left out."""

ODD = "odd clients"
"""The table of honest clients who are odd."""

ONE_CLASS = "one class"
"""The table of federations in which many clients have one class only."""

ADAPTIVE = "adaptive"
"""The table of attackers who know the detector."""

FLOORS = {
    "auroc": (0.985, 0.97, 0.95, 0.90, 0.97),
    "tpr_at_1fpr_5_rounds": (0.95, 0.92, 0.90, 0.80, 0.92),
    "clean_fpr": (0.015,) * 5,
}
"""What the figures of `JUDGED` are to reach; the rate of false alarms is not to exceed it."""

FIGURES = {
    "auroc": "AUROC, one round",
    "tpr_at_1fpr": "TPR at 1 % FPR, one round",
    "tpr_at_1fpr_by_harm": "the same, weighted by harm",
    "tpr_at_1fpr_5_rounds": "TPR at 1 % FPR, five rounds",
    "clean_fpr": "FPR on clean runs, calibrated for 1 %",
    "excluded_malicious": "malicious clients excluded at defaults, five rounds",
    "excluded_benign": "benign clients excluded at defaults, five rounds",
    "passed_malicious": "malicious updates passed on at defaults, share of their weight",
    "passed_harm": "the same, weighted by harm",
    "lost_benign": "benign updates held back at defaults, beside attackers",
    "lost_clean": "benign updates held back at defaults, where nobody attacks",
}

Row = Mapping[str, Any]

_JSON = RESULTS / "detector.json"


@dataclass(frozen=True)
class Record:
    """What was measured: `docs/results/detector.json`, `.md`, and two tables in README.

    Attributes:
        training: What the detectors were learned from, as `training_facts` says it.
        measured_on: Digest of the federations and settings that each part depends on; rows of
            others are not taken over.
    """

    training: Mapping[str, Any]
    measured_on: Mapping[str, str]

    def measured(self) -> dict[str, list[Row]]:
        """Return the rows that are in the JSON, by part."""
        parts: dict[str, list[Row]] = {}
        record = json.loads(_JSON.read_text(encoding="utf-8")) if _JSON.is_file() else {}
        for found in record.get("rows", ()):
            part = found["part"]
            if record["measured_on"].get(part) == self.measured_on.get(part, "no part"):
                parts.setdefault(part, []).append(found)
        return parts

    def write(self, parts: Mapping[str, Sequence[Row]], missing: Sequence[str]) -> None:
        """Write the rows of all parts; some may still have to be measured."""
        rows = [_rounded({"part": part, **found}) for part in parts for found in parts[part]]
        record = {
            "command": COMMAND,
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "training": dict(self.training),
            "measured_on": dict(self.measured_on),
            "targets": {"held_out": JUDGED, **FLOORS},
            "still_to_measure": list(missing),
            "rows": rows,
        }
        RESULTS.mkdir(parents=True, exist_ok=True)
        _JSON.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        _write_page(rows, missing)


def _write_page(rows: Sequence[Row], missing: Sequence[str]) -> None:
    page = [
        "# The detector on what it has never seen",
        f"Written by `{COMMAND}`. Every row is scored by a detector that was trained without what "
        "the row names; seeds of the evaluation are never seen in training. TPR is at the score "
        "that 1 % of the benign updates exceed.",
        "## Unseen data sets", main_table(rows),
        "![Rivals on the same updates](detector.png)",
        "## Rivals on the same updates: AUROC of one round",
        "On texts the rivals judged the same federations on another machine, which rounds "
        "differently: nearly the same updates.",
        rivals_table(rows, "auroc"),
        "## Rivals on the same updates: TPR at 1 % FPR after five rounds",
        rivals_table(rows, "tpr_at_1fpr_5_rounds"),
        "## One who knows the trigger",
        "A statistic that no defence can have: what the attackers' own trigger does to a client, "
        "towards the attackers' class and beyond what it does to the median client, on the same "
        "clean samples, a quarter of the way along the update.",
        figures_table(rows, KNOWN_TRIGGER),
        "## Without experts",
        "The same detectors, but only the networks that read all descriptors are heard, not those "
        "that read nothing but the answers to searched triggers.",
        figures_table(rows, NO_EXPERTS),
        "## What the default policy passes on",
        "Means over the data sets of the training that no other figure here is about, each by a "
        "detector that has not seen it. By these the settings of the policy were chosen; what they "
        "are worth on the evaluation is in the first table.",
        policies_table(rows),
        "## Attackers kept out of the model, or averaged in", by_label(rows, "data set, ", None),
        "## Where a shield was wrong",
        "Federations of the data set that its detector was not trained on, in which a tenth to "
        "four tenths of the honest clients were left out for rounds, half of the time those who "
        "have most of some class: their updates bring back what the model has forgotten.",
        figures_table(rows, HELD_BACK),
        "## Honest clients who are odd",
        "Share of their updates that is held back at defaults, by what is odd about a client, and "
        "how many updates there are: tiny (few samples), of one class only, three in ten labels "
        "drawn anew, three times the epochs, three times the learning rate. The evaluation and the "
        "federations of the data set that its detector was not trained on, but for those that were "
        "played for their clients of one class.",
        oddities_table(rows),
        "## Where many clients have one class only",
        "In three fifths of these federations more than half of the honest clients have samples of "
        "a single class. Detectors learn from such federations of other data sets.",
        figures_table(rows, ONE_CLASS),
        "## By what an update alone would do",
        "AUROC of attackers among the benign clients of their round, by the rise of the attack "
        "success rate that the update alone would cause, in points, and how many there are: the "
        "evaluation and the federations of the data set that its detector was not trained on.",
        by_label(rows, "harm", "harm"),
        "## Unseen trigger families", kinds_table(rows, "trigger"),
        "## Unseen architectures", kinds_table(rows, "architecture"),
        "## Trained on vision, on language, on both: AUROC",
        "Here and in the three tables that follow, as for unseen triggers and architectures, a "
        "detector is one network, learned in fewer steps than the one that is shipped.",
        by_label(rows, "trained on", "trained_on"),
        "## Learned from a share of the federations: AUROC", by_label(rows, FEDERATIONS, "share"),
        "## Without a group of descriptors: AUROC", by_label(rows, "descriptors", "descriptors"),
        "## Algorithms, without adaptation: AUROC", by_label(rows, "algorithm", "algorithm"),
        "## Clean samples of the server: AUROC",
        *_federations(rows), by_label(rows, SAMPLES, "clean_samples"),
        "## Attackers who know the detector: AUROC",
        "The same federations twice: attackers who poison their data and nothing else, and such "
        "who also train to answer probes as an honest client would, with updates of honest length. "
        "In brackets, by how many points one update alone would raise the attack success rate.",
        by_label(rows, ADAPTIVE, "attackers"),
    ]  # fmt: skip
    if missing:
        page.insert(2, f"Still to be measured: {', '.join(missing)}.")
    draw_rivals(rows, JUDGED, RESULTS / "detector.png")
    text = "\n\n".join(page) + "\n"
    (RESULTS / "detector.md").write_text(text, encoding="utf-8")
    write_table(ROOT / "README.md", "detector-table", main_table(rows))
    write_table(ROOT / "README.md", "harm-table", by_label(rows, "harm", "harm"))
    print(main_table(rows))


def row(table: str, held_out: str, statistic: str, **values: Any) -> dict[str, Any]:
    """Return one row of the results."""
    return {"table": table, "held_out": held_out, "statistic": statistic, **values}


def training_facts(training: Sequence[EpisodeTable], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the results say of what the detectors were learned from."""
    return {
        "settings": dict(settings),
        "rounds": len(training),
        "federations": len({table.run for table in training}),
    }


def main_table(rows: Sequence[Row]) -> str:
    """Return the figures of unseen data sets with what they are to reach."""
    own = {r["held_out"]: r for r in rows if r["table"] == "data set" and _is_own(r)}
    lines = []
    for key, title in FIGURES.items():
        cells = []
        for index, name in enumerate(JUDGED):
            floor = FLOORS[key][index] if key in FLOORS else None
            cells.append(_cell(own[name].get(key), floor, at_most=key == "clean_fpr"))
        lines.append([title, *cells])
    lines.append(
        ["federations (rounds)", *(f"{own[n]['seeds']} ({own[n]['rounds']})" for n in JUDGED)]
    )
    return _markdown(["figure (to reach)", *JUDGED], lines)


def rivals_table(rows: Sequence[Row], key: str) -> str:
    """Return one figure of every statistic on every data set."""
    kept = [r for r in rows if r["table"] == "data set"]
    names = list(dict.fromkeys(r["statistic"] for r in kept))
    cells = {(r["statistic"], r["held_out"]): r[key] for r in kept}
    return _markdown(
        ["statistic", *JUDGED], [[n, *(_cell(cells.get((n, d))) for d in JUDGED)] for n in names]
    )


def figures_table(rows: Sequence[Row], table: str) -> str:
    """Return the figures of a table that has one row a data set."""
    found = {r["held_out"]: r for r in rows if r["table"] == table}
    return _markdown(
        ["figure", *JUDGED],
        [
            [title, *(_cell(found[name][key]) for name in JUDGED)]
            for key, title in FIGURES.items()
            if found and key in found[JUDGED[0]]
        ],
    )


def policies_table(rows: Sequence[Row]) -> str:
    """Return what settings of the shield's default policy pass on."""
    kept = [r for r in rows if r["table"] == GRADED]
    keys = ("passed_malicious", "passed_harm", "lost_benign", "lost_clean")
    return _markdown(
        ["policy", *(FIGURES[k].replace(" at defaults", "") for k in keys)],
        [[r["policy"], *(_cell(r[k]) for k in keys)] for r in kept],
    )


def oddities_table(rows: Sequence[Row]) -> str:
    """Return what odd honest clients lose, by oddity and data set, and the mean."""
    found = _by_name((r["oddity"].replace("_", " "), r) for r in rows if r["table"] == ODD)
    lines = []
    for name, by_data in found.items():
        cells = [f"{_cell(by_data[d]['lost'])} ({by_data[d]['updates']})" for d in JUDGED]
        lines.append([name, *cells, _mean_cell(by_data.values(), "lost")])
    return _markdown(["odd is", *JUDGED, "mean"], lines)


def kinds_table(rows: Sequence[Row], table: str) -> str:
    """Return the figures of unseen triggers or architectures."""
    kept = [r for r in rows if r["table"] == table]
    keys = ("auroc", "tpr_at_1fpr", "tpr_at_1fpr_5_rounds")
    return _markdown(
        [table, *(FIGURES[k] for k in keys), "federations"],
        [[r["held_out"], *(_cell(r[k]) for k in keys), str(r["seeds"])] for r in kept],
    )


def by_label(rows: Sequence[Row], table: str, label: str | None) -> str:
    """Return AUROC by label and data set, and the mean TPR where the rows have it.

    Without a label, the rest of the table's name is it.
    """
    kept = [r for r in rows if (r["table"] == table if label else r["table"].startswith(table))]
    keys = ["auroc", *(["tpr_at_1fpr"] if all("tpr_at_1fpr" in r for r in kept) else [])]
    found = _by_name((str(r[label]) if label else r["table"].removeprefix(table), r) for r in kept)
    lines = []
    for name, by_data in found.items():
        means = [_mean_cell(by_data.values(), key) for key in keys]
        lines.append([name, *(_explained(by_data.get(d), label) for d in JUDGED), *means])
    heads = ["mean", *(f"mean {FIGURES[key]}" for key in keys[1:])]
    return _markdown([label.replace("_", " ") if label else "global model", *JUDGED, *heads], lines)


def _by_name(named: Iterable[tuple[str, Row]]) -> dict[str, dict[str, Row]]:
    """Return named rows by name, and those of a name by data set."""
    found: dict[str, dict[str, Row]] = {}
    for name, r in named:
        found.setdefault(name, {})[r["held_out"]] = r
    return found


def _mean_cell(rows: Iterable[Row], key: str) -> str:
    """Return the mean of a figure over the rows that have it."""
    return _cell(mean([r[key] for r in rows if r[key] is not None]))


def _federations(rows: Sequence[Row]) -> list[str]:
    """Say over how many federations of a data set the number of clean samples was varied."""
    seeds = {r["seeds"] for r in rows if r["table"] == SAMPLES}
    return [f"On the first {max(seeds)} federations of each data set."] if seeds else []


def _explained(row: Row | None, label: str | None) -> str:
    """Return an AUROC; where the label is one of attackers, with their number or their harm."""
    if row is None:
        return "–"
    cell = _cell(row["auroc"])
    if label == "harm":
        return f"{cell} ({row['malicious']})"
    if label == "attackers":
        return f"{cell} ({100 * row['mean_harm']:.1f})"
    return cell


def _cell(value: float | None, floor: float | None = None, *, at_most: bool = False) -> str:
    if value is None:
        return "–"
    text = f"{value:.3f}"
    if floor is None:
        return text
    met = value <= floor if at_most else value >= floor
    return f"{text} ({'≤' if at_most else '≥'} {floor:g} {'met' if met else 'missed'})"


def _markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    if not lines:
        return "Still to be measured."
    out = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join([*out, *("| " + " | ".join(line) + " |" for line in lines)])


def _is_own(row: Row) -> bool:
    return str(row["statistic"]) == "fl_shield"


def _rounded(row: Row) -> dict[str, Any]:
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()}
