"""The results of the model-level study as JSON, Markdown and a table in README."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import model_scanning_zoo as zoo
from benchmarks.marked_table import write_table
from fl_shield.metrics.detection import auroc, detection_rates
from fl_shield.scanning.calibration import conformal_threshold
from fl_shield.scanning.ensemble import Ensemble
from fl_shield.scanning.models.augmenting import COPIES
from fl_shield.scanning.models.df_tnd import DataFreeTnd
from fl_shield.scanning.models.dl_tnd import DataLimitedTnd
from fl_shield.scanning.models.meta_shield import MetaShieldModels
from fl_shield.scanning.models.neural_cleanse import NeuralCleanse

RESULTS = zoo.ROOT / "docs" / "results"
COMMAND = "make results-models"

FALSE_ALARMS = 0.05
WEAK = 0.5
"""Backdoors that succeed less often than this are counted apart: there is little to find."""

NAMES = {
    "meta_shield": "MetaShield (whole model)",
    "mntd": "MNTD",
    "mntd_robust": "MNTD, robust",
    "mntd_logits": "MNTD, logits",
    "mntd_probabilities": "MNTD, probabilities",
    "neural_cleanse": "Neural Cleanse",
    "dl_tnd": "DL-TND",
    "df_tnd": "DF-TND",
    "fisher": "ensemble, Fisher",
    "harmonic": "ensemble, harmonic mean",
}

REPAIRS = {
    "fine_pruning": "fine-pruning",
    "unlearning": "unlearning, classes of Neural Cleanse",
    "unlearning_shield": "unlearning, classes of MetaShield",
}

METHODS = [name for name in NAMES if name not in ("fisher", "harmonic")]

PUBLISHED: dict[str, float] = {
    "meta_shield": MetaShieldModels.published,
    "neural_cleanse": NeuralCleanse.published,
    "dl_tnd": DataLimitedTnd.published,
    "df_tnd": DataFreeTnd.published,
}
"""Thresholds that need no shadows; MetaShield's is that of its detector."""

Found = Mapping[str, Sequence[float]]
"""`role/kind-index` to score and seconds."""


def scores_of(store: Path, task: str) -> dict[str, Found]:
    """Return the scores of a task by method, in the order of `NAMES`."""
    folder = store / "scores" / task
    files = {name: folder / f"{name}.json" for name in NAMES}
    return {
        name: json.loads(file.read_text(encoding="utf-8"))
        for name, file in files.items()
        if file.is_file()
    }


def with_ensembles(scores: Mapping[str, Found]) -> dict[str, Found]:
    """Return the scores with those of the ensembles, where all methods have judged."""
    every = dict(scores)
    # MNTD ranks models; its thresholds are of shadows, and suspects of longer training pass them.
    scores = {k: v for k, v in scores.items() if not k.startswith("mntd")}
    shared = sorted(set.intersection(*(set(found) for found in scores.values())))
    clean = [key for key in shared if key.startswith("shadow/")]
    if len(scores) < 2 or len(clean) < 1 / FALSE_ALARMS - 1:
        return every
    reference = {name: [found[key][0] for key in clean] for name, found in scores.items()}
    judged = {name: [found[key][0] for key in shared] for name, found in scores.items()}
    for name in ("fisher", "harmonic"):
        ensemble = Ensemble(name, FALSE_ALARMS).fit(reference)
        combined = ensemble.score(judged)
        seconds = [sum(found[key][1] for found in scores.values()) for key in shared]
        every[name] = {
            key: (float(score), time)
            for key, score, time in zip(shared, combined, seconds, strict=True)
        }
    return every


def rows_of(store: Path, task: str) -> list[dict[str, Any]]:
    """Return a row for each method and kind of backdoor: AUROC, and rates at the threshold."""
    scores = scores_of(store, task)
    if not scores:
        return []
    success = _success(store, task)
    rows = []
    for method, found in with_ensembles(scores).items():
        clean = [found[k][0] for k in found if k.startswith("victim/clean")]
        calibration = [found[k][0] for k in found if k.startswith("shadow/")]
        for kind in zoo.KINDS[1:]:
            keys = [k for k in found if k.startswith(f"victim/{kind}")]
            if not keys or not clean:
                continue
            strong = [k for k in keys if success[k] >= WEAK]
            bad = [found[k][0] for k in keys]
            row: dict[str, Any] = {"task": task, "method": method, "kind": kind}
            row |= {"clean": len(clean), "backdoored": len(bad), "strong": len(strong)}
            row["auroc"] = _auroc(bad, clean)
            row["auroc_strong"] = _auroc([found[k][0] for k in strong], clean)
            row["seconds"] = float(np.median([value[1] for value in found.values()]))
            truth = [False] * len(clean) + [True] * len(bad)
            if len(calibration) >= 1 / FALSE_ALARMS - 1:
                limit = conformal_threshold(calibration, FALSE_ALARMS, "shadow models")
                flags = [score > limit for score in [*clean, *bad]]
                row["tpr"], row["fpr"] = detection_rates(flags, truth)
            if method in PUBLISHED:
                flags = [score > PUBLISHED[method] for score in [*clean, *bad]]
                row["published_tpr"], row["published_fpr"] = detection_rates(flags, truth)
            rows.append(row)
    return rows


def repairs_of(store: Path, task: str) -> list[dict[str, Any]]:
    """Return a row for each kind of backdoor and repair: means over the repaired victims."""
    file = store / "scores" / task / "repairs.json"
    found = list(json.loads(file.read_text(encoding="utf-8")).values()) if file.is_file() else []
    rows = []
    for kind in zoo.KINDS:
        for method in REPAIRS:
            chosen = [r for r in found if (r["kind"], r["method"]) == (kind, method)]
            if chosen:
                row: dict[str, Any] = {"task": task, "kind": kind, "method": method}
                row["models"] = len(chosen)
                for figure in ("asr_before", "asr_after", "ma_before", "ma_after"):
                    row[figure] = float(np.mean([r[figure] for r in chosen]))
                if method != "fine_pruning":
                    row["targets_found"] = sum(r["found"] for r in chosen)
                rows.append(row)
    return rows


def write_results(store: Path) -> None:
    """Write `docs/results/models.json` and `.md`, and a table into README."""
    tasks = [task for task in zoo.ZOOS if (store / task / "victim").is_dir()]
    detection = [row for task in tasks for row in rows_of(store, task)]
    record = {
        "command": COMMAND,
        "false_alarms": FALSE_ALARMS,
        "victims": [_victims(store, task) for task in tasks],
        "detection": detection,
        "repair": [row for task in tasks for row in repairs_of(store, task)],
        "missing": _missing(store),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1)
    (RESULTS / "models.json").write_text(text + "\n", encoding="utf-8")
    (RESULTS / "models.md").write_text(_markdown(record), encoding="utf-8")
    write_table(zoo.ROOT / "README.md", "models-table", auroc_table(detection))


def auroc_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the AUROC of each method by task and kind of backdoor, as a table in Markdown.

    Args:
        rows: Those of `rows_of`, of all tasks.
    """
    cells = {(row["method"], row["task"], row["kind"]): row["auroc"] for row in rows}
    columns = list(dict.fromkeys((task, kind) for _, task, kind in cells))
    lines = [
        f"| AUROC | {' | '.join(f'{task} {kind}' for task, kind in columns)} |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for method, name in NAMES.items():
        own = [cells.get((method, *column)) for column in columns]
        if any(value is not None for value in own):
            texts = ["–" if value is None else f"{value:.3f}" for value in own]
            lines.append(f"| {name} | {' | '.join(texts)} |")
    return "\n".join(lines)


def _auroc(bad: Sequence[float], clean: Sequence[float]) -> float | None:
    return auroc([*clean, *bad], [False] * len(clean) + [True] * len(bad))


def _cards(store: Path, task: str) -> dict[str, dict[str, Any]]:
    files = sorted((store / task / "victim").glob("*.json"))
    return {f"victim/{f.stem}": json.loads(f.read_text(encoding="utf-8")) for f in files}


def _success(store: Path, task: str) -> dict[str, float]:
    return {key: card.get("asr", 0.0) for key, card in _cards(store, task).items()}


def _victims(store: Path, task: str) -> dict[str, Any]:
    cards = _cards(store, task).values()
    row: dict[str, Any] = {"task": task}
    for kind in zoo.KINDS:
        chosen = [card for card in cards if card["kind"] == kind]
        row[kind] = {"models": len(chosen)}
        if chosen:
            row[kind]["ma"] = float(np.mean([card["accuracy"] for card in chosen]))
        if chosen and kind != zoo.CLEAN:
            row[kind]["asr"] = float(np.mean([card["asr"] for card in chosen]))
    shadows = (store / task / "shadow").glob("*.safetensors")
    row["shadows"] = len(list(shadows))
    return row


def _missing(store: Path) -> list[str]:
    missing = []
    for task in zoo.ZOOS:
        for kind, count in zoo.VICTIMS[task].items():
            there = len(list((store / task / "victim").glob(f"{kind}-*.safetensors")))
            if there < count:
                missing.append(f"{task}: {there} of {count} {kind} victims")
        missing += [f"{task}: {NAMES[m]}" for m in METHODS if m not in scores_of(store, task)]
    return missing


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _markdown(record: Mapping[str, Any]) -> str:
    lines = [
        "# Whole models",
        "",
        f"Written by `{COMMAND}`. Victims are trained on half of the training data, the defender "
        "has 4 % of it and no victim (`benchmarks/model_scanning_zoo.py`). Accuracy (MA), attack "
        "success (ASR), TPR and FPR in per cent. The threshold of TPR and FPR is the conformal "
        f"quantile for {100 * record['false_alarms']:.0f} % of false alarms over 20 clean shadows. "
        f"Shadows see {COPIES} slightly moved copies of the defender's samples, and still "
        "fewer samples than victims do, so that the measured FPR may differ. *As published*: with "
        "the threshold of the paper, or of MetaShield's detector, without any shadow.",
        "",
        "| task | kind | models | MA | ASR | shadows |",
        "|---|---|---|---|---|---|",
    ]
    for row in record["victims"]:
        for kind in zoo.KINDS:
            part = row[kind]
            if part["models"]:
                lines.append(
                    f"| {row['task']} | {kind} | {part['models']} | {_percent(part['ma'])} | "
                    f"{_percent(part.get('asr'))} | {row['shadows']} |"
                )
    lines += [
        "",
        "## Detection",
        "",
        f"AUROC over clean and backdoored victims; *strong*: those with ASR of {100 * WEAK:.0f} % "
        "or more only. On `grey_glyphs` MNTD has learned from MNIST: a task that it never saw. "
        "MetaShield has learned from other tasks than these three "
        "(`benchmarks/model_scanning_classes.py`), and both of them from Jumbo triggers alone: "
        "BadNets and Blended are new to them. MNTD reads log-probabilities where the row says "
        "nothing else: they did best on models of MNIST and CIFAR-10 samples that neither attacker "
        "nor defender holds. It is no part of the ensembles: models of longer training than its "
        "shadows' pass its thresholds, with a backdoor or without.",
        "",
        "| task | kind | method | clean | backdoored | AUROC | strong | TPR | FPR "
        "| TPR as published | FPR as published | CPU s each |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["detection"]:
        strong = "–" if row["auroc_strong"] is None else f"{row['auroc_strong']:.3f}"
        lines.append(
            f"| {row['task']} | {row['kind']} | {NAMES[row['method']]} | {row['clean']} | "
            f"{row['backdoored']} | {row['auroc']:.3f} | {strong} | {_percent(row.get('tpr'))} | "
            f"{_percent(row.get('fpr'))} | {_percent(row.get('published_tpr'))} | "
            f"{_percent(row.get('published_fpr'))} | {row['seconds']:.2f} |"
        )
    lines += [
        "",
        "## Repair",
        "",
        "Means over the first victims of each kind, with the defender's samples. Unlearning trains "
        "against the triggers of classes whose anomaly index is above 2 (Neural Cleanse), or that "
        "MetaShield suspects; where none is named, the model is left as it is. *Found*: models "
        "whose target is among these classes.",
        "",
        "| task | kind | repair | models | ASR before | after | MA before | after | found |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["repair"]:
        figures = (row[f] for f in ("asr_before", "asr_after", "ma_before", "ma_after"))
        lines.append(
            f"| {row['task']} | {row['kind']} | {REPAIRS[row['method']]} | "
            f"{row['models']} | {' | '.join(map(_percent, figures))} | "
            f"{row.get('targets_found', '–')} |"
        )
    if record["missing"]:
        lines += ["", "Still to measure: " + "; ".join(record["missing"]) + "."]
    return "\n".join(lines) + "\n"
